"""The promises of asrd for one job, given the request and the faults during its life."""

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The kind of a job, which decides the outcomes that keep the promise (`_PROMISED`)."""

    INNOCENT = "innocent"
    POISON = "poison"
    BAD_AUDIO = "bad audio"
    DOUBTFUL = "audio that changes"
    CANCELLED = "cancelled"
    HURRIED = "tiny timeout"


@dataclass(eq=False)
class Job:
    """A job as its client sees it. `text` is the right transcript, `timeout` the client's own in
    seconds, `uid` the client's user if the clients are several users; times are monotonic seconds.
    With `library` set, the client library retries, so that one job may be several requests.
    `windows` are those of its recording, `ahead` those of all jobs that were open before it."""

    id: str
    kind: Kind
    how: str
    text: str | None
    timeout: float | None
    library: bool
    uid: int | None
    log_from: int
    windows: int = 1
    ahead: int = 0
    born: float = field(default_factory=time.monotonic)
    accepted: float | None = None
    ended: float | None = None
    outcome: str | None = None
    found: str | None = None
    attempts: int = 1
    notes: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.notes.append((time.monotonic(), what))

    @property
    def nameless(self) -> bool:
        """True if the daemon does not know its id: pure Wyoming has none."""
        return self.how in ("stream", "wyoming")

    @property
    def seconds(self) -> float:
        """The time from acceptance (or from the request, if the client saw none) to the end."""
        start = self.born if self.accepted is None else self.accepted
        return (time.monotonic() if self.ended is None else self.ended) - start


@dataclass(frozen=True)
class Fault:
    """A fault to `target`: `front`, a worker's name or `disk`. It acts from `start`, and may take
    effect until `end` (the watchdog kills a stopped process only after a while)."""

    start: float
    end: float
    what: str
    target: str
    pid: int


# The outcomes that need no excuse; `_excused` knows the others.
_PROMISED = {
    Kind.INNOCENT: {"transcript"},
    Kind.POISON: {"worker-crashed"},
    Kind.BAD_AUDIO: {"bad-audio"},
    Kind.DOUBTFUL: {"bad-audio", "transcript"},
    Kind.CANCELLED: {"cancelled", "transcript"},
    Kind.HURRIED: {"deadline-exceeded", "transcript"},
}

# Faults that ask a process to end: it must first answer the jobs that it has accepted.
GENTLE = frozenset({"SIGTERM", "restart", "stop of its socket"})
# Faults that keep a worker from serving without killing it. If all workers have one, none serves.
ABSENT = frozenset({"stop of its socket", "no model"})


# The windows of other jobs for each window of a long one, at most: a worker has up to three long
# jobs, and each of their turns comes after a few commands.
_TURNS = 10


@dataclass(frozen=True)
class Limits:
    """The daemon's settings that bound an answer, and allowances for a slow machine; seconds.

    A fault acts for `slow_death` (from SIGSTOP until the watchdog has killed the process) or for
    `quick_death` (from any other signal until all have noticed). A process that is asked to stop
    may take as long as its jobs, and `stop` at most. `window`: the time for one window of audio.
    `patience`: the library's, while a daemon refuses its requests.
    """

    wait: float
    slow_death: float
    frame: float
    stop: float
    window: float
    quick_death: float = 2.0
    grace: float = 10.0
    attempts: int = 2
    workers: int = 2
    patience: float = 60.0

    def lasting(self, what: str) -> float:
        if what in GENTLE:
            return self.quick_death + self.stop
        return self.slow_death if what in ("SIGSTOP", "no model") else self.quick_death


def judge(job: Job, around: list[Fault], limits: Limits) -> str | None:
    """Returns the promise that this outcome breaks, None if it keeps all. `around`: the faults that
    acted during the job's life."""
    if job.outcome == "transcript" and job.found != job.text:
        return f"the wrong text: {job.found!r} instead of {job.text!r}"
    late = job.seconds - longest(job, limits, disturbed=bool(around))
    if late > 0:
        return f"answered {late:.1f} s too late, with {job.outcome}"
    if job.outcome in _PROMISED[job.kind] or _excused(job, around, limits):
        return None
    return f"{job.outcome} is no honest answer to {job.kind}"


def longest(job: Job, limits: Limits, disturbed: bool) -> float:
    """Returns the time within which no job starves: that of the work that was there before it, and
    a multiple of its own, since later jobs may pass it as it takes its turns. Only faults make it
    wait for a worker: before each attempt, and until a hung process is replaced."""
    if job.timeout is not None:
        return job.timeout + limits.grace
    found = limits.grace + limits.window * (job.ahead + _TURNS * job.windows)
    if disturbed:
        found += max(limits.attempts, job.attempts) * limits.wait + limits.slow_death
    return found + limits.patience if job.library else found


def _excused(job: Job, around: list[Fault], limits: Limits) -> bool:
    front = {fault.what for fault in around if fault.target == "front"}
    deaths = [f for f in around if f.target.startswith("worker") and f.what not in GENTLE | ABSENT]
    if job.outcome == "busy":
        return job.accepted is None
    if job.outcome == "shutting-down":
        return job.accepted is None and bool(front)
    if job.outcome == "unavailable":
        return len({f.target for f in around if f.what in ABSENT}) >= limits.workers
    if job.outcome == "lost":
        # A front that is asked to stop answers the jobs that it has accepted. One that is asked
        # twice ends at once, and a killed one can't answer.
        asked = Counter(f.pid for f in around if f.target == "front" and f.what in GENTLE)
        ended = bool(front - GENTLE) or max(asked.values(), default=0) > 1
        return ended or (bool(front) and job.accepted is None)
    if job.outcome == "worker-crashed":
        return len(deaths) >= limits.attempts
    if job.outcome == "deadline-exceeded":
        if job.timeout is None and not around:
            return False
        waited = (job.ended or 0) - job.born
        return waited >= (limits.wait if job.timeout is None else job.timeout) - 0.1
    return False
