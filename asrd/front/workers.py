"""What the scheduler knows of each worker. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from asrd.front.fairqueue import Job


class WorkerState(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    ASLEEP = "asleep"
    FAILED = "failed"
    DOWN = "down"


# Nothing can be expected of a worker in these.
HOPELESS = (WorkerState.FAILED, WorkerState.DOWN)


@dataclass(eq=False, slots=True)
class Worker:
    name: str
    state: WorkerState = WorkerState.STARTING
    reason: str | None = None
    model: str | None = None
    slots: int = 1
    spare: bool = False
    # Whether it can read the next job while one runs; and the key and the job that it has read.
    can_prefetch: bool = False
    prefetched: tuple[int, Job] | None = None
    # Its socket is gone: it gets no more jobs, and leaves once the last one is answered.
    retired: bool = False
    # It was asleep, and nothing was heard of it since it was woken.
    woken: bool = False
    # By key; None stands for a job that was abandoned but still takes the slot.
    jobs: dict[int, Job | None] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state is WorkerState.READY and not self.retired

    @property
    def free(self) -> bool:
        return self.ready and len(self.jobs) < self.slots

    @property
    def hopeful(self) -> bool:
        """Whether it serves, or may be expected to."""
        return not self.retired and self.state not in HOPELESS

    def can_run(self, job: Job) -> bool:
        """Whether the job may wait for this worker; one that never loaded may have any model."""
        return self.hopeful and (None in (job.model, self.model) or job.model == self.model)

    @property
    def running_since(self) -> float:
        """When the first of its jobs was started: who began first should end first."""
        return min((job.started_at for job in self.jobs.values() if job), default=0.0)

    def may_prefetch(self, max_attempts: int) -> bool:
        """Whether it is busy, has read nothing ahead, and runs no job on its last attempt."""
        if self.free or not (self.ready and self.can_prefetch and self.prefetched is None):
            return False
        return not any(job and job.attempts >= max_attempts for job in self.jobs.values())

    def put_down(self) -> int:
        """Forget what it has read ahead; the key that this was under."""
        key, _ = self.prefetched or (0, None)
        self.prefetched = None
        return key


class Workers(dict[str, Worker]):
    """All of them, by name."""

    def serving(self) -> Iterator[Worker]:
        """Those that are ready, without the spares that are not needed."""
        return (worker for worker in self.values() if worker.ready and not self._reserved(worker))

    def reader_of(self, job: Job) -> Worker | None:
        """Who has read it ahead of its turn."""
        held = (w for w in self.values() if w.prefetched is not None and w.prefetched[1] is job)
        return next(held, None)

    def _reserved(self, worker: Worker) -> bool:
        return worker.spare and any(
            other.ready and not other.spare and other.model == worker.model
            for other in self.values()
        )
