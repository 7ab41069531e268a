"""When jobs are due: a heap whose outdated entries go as they come to the top. Pure."""

import heapq

from asrd.front.scheduling.job import Job

# Below so many entries sweeping is not worth its while.
_SWEEP_FROM = 64


class Deadlines:
    """Of each job only the deadline set last counts, and none once the job has ended."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._order = 0
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, job: Job, due: float) -> None:
        """At `due`, or once the job's own timeout has passed."""
        job.deadline = due if job.timeout is None else min(due, job.arrival + job.timeout)
        self._order += 1
        heapq.heappush(self._heap, (job.deadline, self._order, job))
        # Jobs that end in time leave their entries behind: these must not outnumber the living.
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if _counts(entry)]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + _SWEEP_FROM

    def first(self) -> Job | None:
        """The job that is due next."""
        while self._heap:
            if _counts(self._heap[0]):
                return self._heap[0][2]
            heapq.heappop(self._heap)
        return None


def _counts(entry: tuple[float, int, Job]) -> bool:
    due, _, job = entry
    return not job.ended and job.deadline == due
