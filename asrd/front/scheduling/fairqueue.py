"""The one bounded queue, fair between users. Pure.

Users take turns by the work that their jobs have cost: the one with the least is next (start-time
fair queueing: Goyal, Vin and Cheng, 1996). So one user's flood, or one user's hours of recordings,
delay another user's job by the running jobs alone. A user who comes anew starts with what the least
of the active users has cost: nobody is paid for having been away. Nor is anybody for being away for
a moment, as users are between two steps of a live stream: what they have cost is kept until the
others have cost as much. And nobody is ahead of another user by more than `_CREDIT_SECONDS`, so
however long one waited for a rare model, others go on.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asrd.front.scheduling.job import Job, Needs
from asrd.quota import Quota
from asrd.settings import FrontSettings
from asrd.wire.peer import User

# Less than a client waits for a command.
_CREDIT_SECONDS = 10.0
# The users without jobs whose work is kept at most: more can't come again at the same time.
_AWAY_MAX = 1000

Lane = tuple[Needs, bool, bool]


@dataclass(slots=True)
class Account:
    """A user with jobs: their number, the running ones without steps, the seconds of work that they
    have cost, and an estimate of the next windows of the running ones."""

    jobs: int = 0
    running: int = 0
    work: float = 0.0
    planned: float = 0.0

    @property
    def rank(self) -> float:
        # Rounded, so that among equals the order of arrival decides, not errors of addition.
        return round(self.work + self.planned, 6)


class FairQueue:
    """Jobs in order of arrival for each user. Those that a worker gave back stand at the head, and
    count against no limit.

    Nor do steps, which stand behind the jobs of their user. There are two for each live stream at
    most, and one stream for each connection; the spool bounds their audio.
    """

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._returned: deque[Job] = deque()
        # By needs, length and kind, and by user, so that finding the next job does not look at all
        # that wait, and no long job holds up a short one, nor a step a job.
        self._lanes: dict[Lane, dict[User, deque[Job]]] = {}
        # All but steps and those given back.
        self._waiting = Quota(settings.queue_max, settings.queue_max_per_user, "waiting jobs")
        # Half of the places stay for others, whatever the number of addresses.
        self._strangers = Quota(-(-settings.queue_max // 2), 0, "waiting jobs over Wyoming")
        self._bytes, self._seconds = 0, 0.0
        self._arrivals = 0
        self._accounts: dict[User, Account] = {}
        # The work of users without jobs.
        self._away: dict[User, float] = {}

    def __len__(self) -> int:
        """Returns the number of jobs, without steps."""
        return self._waiting.used + len(self._returned)

    def __iter__(self) -> Iterator[Job]:
        """Yields the jobs given back, then those of the user with the least work, and so on; the
        steps of each user last."""
        yield from self._returned
        lanes = self._lanes.values()
        jobs = (job for lane in lanes for queue in lane.values() for job in queue)
        yield from sorted(jobs, key=self._rank)

    def oldest_arrival(self) -> float | None:
        """Returns the time at which the oldest job arrived."""
        lanes = (users for (*_, step), users in self._lanes.items() if not step)
        heads = (jobs[0] for users in lanes for jobs in users.values())
        return min((job.arrival for job in (*self._returned, *heads)), default=None)

    def why_full(self, job: Job) -> str | None:
        """Returns one sentence if there is no room for `job`, None if there is.

        A user for whom nothing waits always gets a place: however many of one user wait, another
        one's job is only delayed.
        """
        if job.step:
            return None
        if job.stranger and (full := self._strangers.why_full(job.user)) is not None:
            return full
        limits, waiting = self._settings, self._waiting.used
        most = limits.queue_max if job.user in self._waiting else 2 * limits.queue_max
        if waiting >= most:
            return f"the queue is full ({waiting} of {most} jobs wait)"
        if job.user not in self._waiting:
            return None
        if self._bytes + job.size > limits.queue_max_bytes:
            return f"the queue is full ({self._bytes} bytes of audio wait)"
        if self._seconds + job.seconds > limits.queue_max_audio_seconds:
            return f"the queue is full ({self._seconds:.0f} s of audio wait)"
        return self._waiting.why_full(job.user)

    def may_start(self, job: Job) -> bool:
        """Returns False if the job's user has as many running jobs as it may."""
        limit, account = self._settings.jobs_running_max_per_user, self._accounts.get(job.user)
        return not limit or job.step or account is None or account.running < limit

    def append(self, job: Job) -> None:
        self._arrivals += 1
        job.order = self._arrivals
        costs = [account.work for account in self._accounts.values()] or [0.0]
        least = max(min(costs), self._away.pop(job.user, 0.0))
        account = self._accounts.setdefault(job.user, Account(work=least))
        account.work = max(account.work, max(costs) - _CREDIT_SECONDS)
        account.jobs += 1
        self._in_lane(job).append(job)
        self._count(job, 1)

    def first(
        self, has_room: Callable[[bool], bool], suits: Callable[[Job], bool], deep: bool = False
    ) -> Job | None:
        """Returns the next job that suits a worker, which has room for long or for short jobs, and
        whose user may have one more.

        All that wait in a lane of one user are alike, so the first of them decides; except if
        `deep`, since the length of their audio counts.
        """
        for job in self._returned:
            if self.may_start(job) and suits(job):
                return job
        lanes = (users for (_, long, _), users in self._lanes.items() if has_room(long))
        queues = (queue for users in lanes for queue in users.values())
        heads = (job for queue in queues for job in (queue if deep else (queue[0],)))
        ready = sorted(filter(self.may_start, heads), key=self._rank)
        return next(filter(suits, ready), None)

    def work_ahead(self, job: Job, work: Callable[[Job], float]) -> float:
        """Returns the work of the jobs that would start before `job` if it waited, too; with the
        steps of other users, but not those of its own, which stand behind it."""
        costs = {user: account.rank for user, account in self._accounts.items()}
        least = min((account.work for account in self._accounts.values()), default=0.0)
        mine, ahead = costs.pop(job.user, least), 0.0
        others = (other for other in self if not other.step or other.user != job.user)
        waiting = [(other, work(other)) for other in others]
        mine += sum(cost for other, cost in waiting if other.user == job.user)
        for place, (other, cost) in enumerate(waiting):
            before = other.user == job.user or place < len(self._returned)
            if before or costs[other.user] <= mine:
                ahead += cost
            if other.user != job.user:
                costs[other.user] += cost
        return ahead

    def start(self, job: Job, planned: float) -> None:
        """A waiting job starts; its first window takes about so many seconds of work."""
        self._remove(job)
        self._accounts[job.user].running += not job.step
        self.charge(job, job.work, planned)

    def charge(self, job: Job, work: float, planned: float = 0.0) -> None:
        """So many seconds of work went into a running job, and its next window takes so many."""
        account = self._accounts[job.user]
        account.work += work - job.work
        account.planned += planned - job.planned
        job.work, job.planned = work, planned

    def give_back(self, job: Job) -> None:
        """A running job waits again, at the head; a step before its user's others."""
        self._stop(job)
        (self._in_lane(job) if job.step else self._returned).appendleft(job)

    def resume(self, job: Job, returned: bool) -> None:
        """A job of the process before this one waits here; `returned`: it had started."""
        self.append(job)
        if returned:
            self._remove(job)
            self._returned.append(job)

    def end(self, job: Job) -> None:
        """A job ends, waiting or running."""
        if job.worker is None:
            self._remove(job)
        else:
            self._stop(job)
        account = self._accounts[job.user]
        account.jobs -= 1
        if not account.jobs:
            del self._accounts[job.user]
            self._keep_away(job.user, account.work)

    def _keep_away(self, user: User, work: float) -> None:
        least = min((account.work for account in self._accounts.values()), default=math.inf)
        self._away[user] = work
        self._away = {user: work for user, work in self._away.items() if work > least}
        if len(self._away) > _AWAY_MAX:
            del self._away[next(iter(self._away))]

    def _stop(self, job: Job) -> None:
        self.charge(job, job.work)
        self._accounts[job.user].running -= not job.step

    def _remove(self, job: Job) -> None:
        if job in self._returned:
            self._returned.remove(job)
            return
        lane = self._lanes[_lane(job)]
        lane[job.user].remove(job)
        self._count(job, -1)
        if not lane[job.user]:
            del lane[job.user]
        if not lane:
            del self._lanes[_lane(job)]

    def _in_lane(self, job: Job) -> deque[Job]:
        return self._lanes.setdefault(_lane(job), {}).setdefault(job.user, deque())

    def _rank(self, job: Job) -> tuple[float, bool, int]:
        return self._accounts[job.user].rank, job.step, job.order

    def _count(self, job: Job, sign: int) -> None:
        if job.step:
            return
        self._waiting.add(job.user, sign)
        self._strangers.add(job.user, sign * job.stranger)
        self._bytes += sign * job.size
        self._seconds += sign * job.seconds


def _lane(job: Job) -> Lane:
    return job.needs, job.long, job.step
