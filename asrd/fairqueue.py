"""The one bounded queue: fair between users, retries at its head. Pure, like the scheduler.

Fairness is round robin by who was served longest ago (uid), so that one user's flood delays
another's job by no more than the jobs that already run.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False, slots=True)
class Job:
    """What the scheduler knows of a job; times in seconds of the caller's clock.

    `size` in bytes and `seconds` (0 if unknown) are the audio's; `timeout` counts from `arrival`;
    `request` is the caller's own record and not looked at here.
    """

    uid: int
    arrival: float
    model: str | None = None
    size: int = 0
    seconds: float = 0.0
    timeout: float | None = None
    attempts: int = 0
    started_at: float = 0.0
    deadline: float = math.inf
    worker: str | None = None
    key: int | None = None
    ended: bool = False
    request: Any = None


@dataclass(frozen=True, slots=True)
class Limits:
    """See asrd.config.FrontSettings for the keys of the same names."""

    queue_max: int = 1
    queue_max_per_user: int = 0
    queue_max_bytes: int = 1 << 50
    queue_max_audio_seconds: float = 1e9
    max_wait_seconds: float = 30.0
    max_run_seconds: float = 3600.0
    max_attempts: int = 2


# Users whose last turn is remembered though they wait for nothing.
_REMEMBERED_USERS = 1024


class FairQueue:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._retries: deque[Job] = deque()
        self._users: dict[int, deque[Job]] = {}
        self._jobs = self._bytes = 0
        self._seconds = 0.0
        self._turn = 0
        self._last_turn: dict[int, int] = {}

    def __len__(self) -> int:
        return self._jobs + len(self._retries)

    def __iter__(self) -> Iterator[Job]:
        """Every waiting job in the order in which they would be started now, user by user."""
        yield from self._retries
        for uid in sorted(self._users, key=lambda uid: self._last_turn.get(uid, 0)):
            yield from self._users[uid]

    def why_full(self, job: Job) -> str | None:
        """One sentence if `job` must not wait as well, None if it may. Retries don't count."""
        limits = self._limits
        if self._jobs >= limits.queue_max:
            return f"the queue is full ({self._jobs} of {limits.queue_max} jobs wait)"
        mine = len(self._users.get(job.uid, ()))
        if limits.queue_max_per_user and mine >= limits.queue_max_per_user:
            return f"{mine} jobs of user {job.uid} wait already"
        # A single job always fits an empty queue: its own size has limits of its own.
        if self._jobs and self._bytes + job.size > limits.queue_max_bytes:
            return f"the queue is full ({self._bytes} bytes of audio wait)"
        if self._jobs and self._seconds + job.seconds > limits.queue_max_audio_seconds:
            return f"the queue is full ({self._seconds:.0f} s of audio wait)"
        return None

    def append(self, job: Job) -> None:
        self._users.setdefault(job.uid, deque()).append(job)
        self._count(job, 1)

    def put_back(self, job: Job) -> None:
        """A job that was started already: to the head, and free of the bounds."""
        self._retries.appendleft(job)

    def first(self, fits: Callable[[Job], bool]) -> Job | None:
        return next((job for job in self if fits(job)), None)

    def serve(self, job: Job) -> None:
        """Take the job out to start it; its user goes to the end of the round."""
        self.remove(job)
        self._turn += 1
        self._last_turn[job.uid] = self._turn
        if len(self._last_turn) > _REMEMBERED_USERS:
            waiting = self._users.keys()
            self._last_turn = {u: t for u, t in self._last_turn.items() if u in waiting}

    def remove(self, job: Job) -> None:
        if job in self._retries:
            self._retries.remove(job)
            return
        queue = self._users[job.uid]
        queue.remove(job)
        self._count(job, -1)
        if not queue:
            del self._users[job.uid]

    def _count(self, job: Job, sign: int) -> None:
        self._jobs += sign
        self._bytes += sign * job.size
        self._seconds += sign * job.seconds
