"""The jobs of one client object: those in flight, and those that wait after a refusal. No I/O, no
clock.

1. A refused job waits as long as the daemon asks, or until another job of the client has ended,
   since that may have made room. Then one of those that wait tries at once; if it is accepted, so
   does the next. So refused jobs queue here, and do not ask the daemon all at once.
2. The daemon makes progress on these jobs while one of them is in flight, and whenever one of them
   gets a segment or a transcript. A job that has expired in the daemon's queue since then does not
   count as in flight: two such jobs would give each other hope without end.
"""

import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Job:
    """`wake` is called when a waiting job should try again at once; `expired_at` is the time at
    which it last expired in the daemon's queue."""

    wake: Callable[[], object] = lambda: None
    expired_at: float = -math.inf


class Jobs:
    """Threads may share it. It has no lock, which a signal handler, `__del__` or a forked child
    could find taken: each change is atomic, and they are in an order that loses no wake-up."""

    def __init__(self) -> None:
        self._in_flight: set[Job] = set()
        self._waiting: deque[Job] = deque()
        # A job has ended since the last one was submitted, and none waited.
        self._room = False
        self._progress_at = -math.inf

    def __repr__(self) -> str:
        return f"<Jobs in_flight={len(self._in_flight)} waiting={len(self._waiting)}>"

    def submit(self, job: Job) -> None:
        self.leave(job)
        self._in_flight.add(job)
        self._room = False

    def leave(self, job: Job) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
        self._in_flight.discard(job)

    def wait(self, job: Job) -> None:
        self._waiting.append(job)
        if self._room:
            self.wake_next()

    def wake_next(self) -> None:
        with contextlib.suppress(IndexError):
            job = self._waiting.popleft()
            self._room = False
            self._in_flight.add(job)
            job.wake()

    def end(self, job: Job) -> None:
        """Ends a job. Unless it only waited, it may leave room for another: one is woken, the next
        that waits if none does."""
        try:
            self._waiting.remove(job)
        except ValueError:
            self._room = True
            self.wake_next()
            self._in_flight.discard(job)

    def progressed(self, now: float) -> None:
        self._progress_at = now

    def last_progress(self) -> float:
        """Returns the time of the last progress, infinity while there is some."""
        jobs = self._in_flight.copy()
        if self._room or any(job.expired_at <= self._progress_at for job in jobs):
            return math.inf
        return self._progress_at
