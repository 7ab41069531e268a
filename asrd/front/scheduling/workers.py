"""What the scheduler knows of each worker. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from asrd.errors import Code
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.needs import UNKNOWN, Needs, Skills, is_called, why_lacking


class WorkerState(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    ASLEEP = "asleep"
    FAILED = "failed"
    DOWN = "down"


# Nothing can be expected of a worker in these.
UNUSABLE = (WorkerState.FAILED, WorkerState.DOWN)


@dataclass(eq=False, slots=True)
class Worker:
    name: str
    state: WorkerState = WorkerState.STARTING
    reason: str | None = None
    # As far as it was heard of it, by whatever process: None, and no skills, before that.
    model: str | None = None
    skills: Skills = UNKNOWN
    spare: bool = False
    # Its socket is gone: it gets no more jobs, and leaves once the last one is answered.
    retired: bool = False
    # It was asleep, and nothing was heard of it since it was woken.
    woken: bool = False
    # The key of the job that it was given last, until it answers; the job is None once abandoned.
    key: int | None = None
    job: Job | None = None

    @property
    def ready(self) -> bool:
        return self.state is WorkerState.READY and not self.retired

    @property
    def free(self) -> bool:
        return self.ready and self.key is None

    @property
    def hopeful(self) -> bool:
        """Whether it serves, or may be expected to."""
        return not self.retired and self.state not in UNUSABLE

    def release(self) -> Job | None:
        """Make room for the next job; returns the one that it ran, None if that was abandoned."""
        job, self.key, self.job = self.job, None, None
        return job

    def has_model(self, needs: Needs) -> bool:
        """One of which nothing was heard may have any model."""
        if needs.model is None or self.model is None:
            return True
        return is_called(self.model, needs.model)

    def could_run(self, needs: Needs) -> bool:
        return self.has_model(needs) and self.skills.lack(needs) is None

    def can_run(self, needs: Needs) -> bool:
        """True if a job may wait for this worker, unless another is preferred."""
        return self.hopeful and self.could_run(needs)


class Workers(dict[str, Worker]):
    """All of them, by name."""

    def serving(self) -> Iterator[Worker]:
        """Those that are ready, without the spares that are not needed."""
        return (worker for worker in self.values() if worker.ready and not self._reserved(worker))

    def suitable(self, needs: Needs) -> list[Worker]:
        """The workers that a job may wait for: see rule 8 of the scheduler."""
        able = [worker for worker in self.values() if worker.can_run(needs)]
        if needs.model is not None:
            able = [worker for worker in able if worker.model == needs.model] or able
        if needs.language is None:
            able = [worker for worker in able if worker.skills.multilingual] or able
        return able

    def suits(self, worker: Worker) -> Callable[[Needs], bool]:
        """A test for needs that this worker may serve."""
        return lambda needs: worker in self.suitable(needs)

    def why_ambiguous(self, needs: Needs) -> str | None:
        """One sentence if the model's name may mean several; None if it means one, or nothing."""
        models = {worker.model for worker in self.suitable(needs) if worker.model is not None}
        if needs.model is None or len(models) < 2:
            return None
        return f"name: {needs.model!r} may be {' or '.join(sorted(models))}: give the whole name"

    def why_hopeless(self, needs: Needs) -> Failure | None:
        """Why no worker can ever run a job with these needs; None if one can."""
        if not self:
            return Failure(Code.UNAVAILABLE, "no worker is configured")
        if any(worker.can_run(needs) for worker in self.values()):
            return None
        hopeful = [worker for worker in self.values() if worker.hopeful]
        gone = [worker for worker in self.values() if not worker.hopeful]
        if hopeful:
            gone = [worker for worker in gone if worker.model and worker.could_run(needs)]
        if gone or not hopeful:
            reasons = (f"worker {w.name}: {w.reason or 'its socket is gone'}" for w in gone)
            return Failure(Code.UNAVAILABLE, f"no worker can serve: {'; '.join(reasons)}")
        named = [worker for worker in hopeful if worker.has_model(needs)]
        if not named:
            there = ", ".join(sorted({worker.model or "" for worker in hopeful}))
            text = f"name: no worker has the model {needs.model!r}; there is: {there}"
            return Failure(Code.MODEL_NOT_FOUND, text)
        return Failure(Code.BAD_REQUEST, why_lacking([w.skills for w in named], needs))

    def _reserved(self, worker: Worker) -> bool:
        return worker.spare and any(
            other.ready
            and not other.spare
            and other.model == worker.model
            # Of two with the same name, the spare may know more.
            and other.skills == worker.skills
            for other in self.values()
        )
