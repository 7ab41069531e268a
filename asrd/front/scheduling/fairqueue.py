"""The one bounded queue, fair between users. Pure.

The user who was served longest ago is next (round robin), so that one user's flood delays another
user's job by the running jobs alone.
"""

from collections import deque
from collections.abc import Callable, Iterator

from asrd.front.scheduling.job import Job, Needs
from asrd.front.scheduling.quota import Quota
from asrd.settings import FrontSettings
from asrd.wire.peer import User

# The users whose last turn is remembered although none of their jobs waits.
_REMEMBERED_USERS = 1024


class FairQueue:
    """Jobs in order of arrival for each user. Retries stand at the head and count against no
    limit."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._retries: deque[Job] = deque()
        # By needs and user, so that finding the next job does not look at all that wait.
        self._lanes: dict[Needs, dict[User, deque[Job]]] = {}
        # All but the retries.
        self._waiting = Quota(settings.queue_max, settings.queue_max_per_user, "waiting jobs")
        self._bytes, self._seconds = 0, 0.0
        self._arrivals = self._turn = 0
        self._last_turn: dict[User, int] = {}

    def __len__(self) -> int:
        return self._waiting.used + len(self._retries)

    def __iter__(self) -> Iterator[Job]:
        """Yields the retries, then the jobs of the user who was served longest ago, and so on."""
        yield from self._retries
        lanes = self._lanes.values()
        jobs = (job for lane in lanes for queue in lane.values() for job in queue)
        yield from sorted(jobs, key=self._rank)

    def oldest_arrival(self) -> float | None:
        """Returns the time at which the oldest job arrived."""
        heads = (jobs[0] for lane in self._lanes.values() for jobs in lane.values())
        return min((job.arrival for job in (*self._retries, *heads)), default=None)

    def why_full(self, job: Job) -> str | None:
        """Returns one sentence if there is no room for `job`, None if there is."""
        limits, waiting = self._settings, self._waiting.used
        if waiting >= limits.queue_max:
            return f"the queue is full ({waiting} of {limits.queue_max} jobs wait)"
        # An empty queue takes any job: one job has limits of its own.
        if waiting and self._bytes + job.size > limits.queue_max_bytes:
            return f"the queue is full ({self._bytes} bytes of audio wait)"
        if waiting and self._seconds + job.seconds > limits.queue_max_audio_seconds:
            return f"the queue is full ({self._seconds:.0f} s of audio wait)"
        return self._waiting.why_full(job.user)

    def append(self, job: Job) -> None:
        self._arrivals += 1
        job.order = self._arrivals
        self._last_turn.setdefault(job.user, 0)
        self._lanes.setdefault(job.needs, {}).setdefault(job.user, deque()).append(job)
        self._count(job, 1)

    def put_back(self, job: Job) -> None:
        """Adds a retry."""
        self._retries.appendleft(job)

    def first(self, suits: Callable[[Needs], bool]) -> Job | None:
        """Returns the next job among those whose needs suit a worker."""
        for job in self._retries:
            if suits(job.needs):
                return job
        lanes = [lane for needs, lane in self._lanes.items() if suits(needs)]
        heads = [lane[min(lane, key=self._last_turn.__getitem__)][0] for lane in lanes]
        return min(heads, key=self._rank, default=None)

    def serve(self, job: Job) -> None:
        """Removes a job that starts. It is its user's turn: that user comes last from now on."""
        self.remove(job)
        self._turn += 1
        self._last_turn[job.user] = self._turn
        if len(self._last_turn) > _REMEMBERED_USERS:
            self._last_turn = {u: t for u, t in self._last_turn.items() if u in self._waiting}

    def remove(self, job: Job) -> None:
        if job in self._retries:
            self._retries.remove(job)
            return
        lane = self._lanes[job.needs]
        lane[job.user].remove(job)
        self._count(job, -1)
        if not lane[job.user]:
            del lane[job.user]
        if not lane:
            del self._lanes[job.needs]

    def _rank(self, job: Job) -> tuple[int, int]:
        return self._last_turn[job.user], job.order

    def _count(self, job: Job, sign: int) -> None:
        self._waiting.add(job.user, sign)
        self._bytes += sign * job.size
        self._seconds += sign * job.seconds
