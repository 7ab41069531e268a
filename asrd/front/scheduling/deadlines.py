"""The deadlines of all jobs: a heap whose outdated entries go when they reach its top. Pure."""

import heapq

from asrd.front.scheduling.job import Job

# A heap smaller than this is not worth sweeping.
_SWEEP_FROM = 64


class Deadlines:
    """A job counts with the deadline that was set last, and not at all once it has ended."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Job]] = []
        self._order = 0
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, job: Job, due: float) -> None:
        """Sets the job's deadline to `due`, or to the end of its own timeout if that is earlier."""
        job.deadline = due if job.timeout is None else min(due, job.arrival + job.timeout)
        self._order += 1
        heapq.heappush(self._heap, (job.deadline, self._order, job))
        # Jobs that end in time leave entries behind, which must not outnumber those that count.
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if _counts(entry)]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + _SWEEP_FROM

    def first(self) -> Job | None:
        """Returns the job with the earliest deadline."""
        while self._heap:
            if _counts(self._heap[0]):
                return self._heap[0][2]
            heapq.heappop(self._heap)
        return None


def _counts(entry: tuple[float, int, Job]) -> bool:
    due, _, job = entry
    return not job.ended and job.deadline == due
