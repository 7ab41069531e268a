"""What asrd promises of one job, given what was asked and what was done to the daemon."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.soak.ledger import Fault, Job

# Outcomes by kind of job, whatever the weather. See `_excused` for the rest.
_PROMISED = {
    "innocent": {"transcript"},
    "poison": {"worker-crashed"},
    "bad audio": {"bad-audio"},
    "audio that changes": {"bad-audio", "transcript"},
    "cancelled": {"cancelled", "transcript"},
    "tiny timeout": {"deadline-exceeded", "transcript"},
}

# Faults that ask a process to end: what it has accepted is answered first.
GENTLE = frozenset({"SIGTERM", "restart", "stop of its socket"})


@dataclass(frozen=True)
class Limits:
    """The daemon's settings that bound an answer, and how slow this machine may be; seconds.

    How long a fault acts: `slow_death` from SIGSTOP to the end by the watchdog, `quick_death` from
    any other signal to the moment when everybody has noticed; a front that is asked to stop may
    take as long as its jobs. `patience`: the library's, with a daemon that refuses.
    """

    wait: float
    run: float
    slow_death: float
    frame: float
    quick_death: float = 2.0
    grace: float = 10.0
    attempts: int = 2
    patience: float = 60.0

    def lasting(self, what: str) -> float:
        if what in GENTLE:
            return self.quick_death + self.wait + self.run
        return self.slow_death if what == "SIGSTOP" else self.quick_death


def judge(job: "Job", around: "list[Fault]", limits: Limits) -> str | None:
    """Which promise this outcome breaks, None if it keeps them all. `around`: the faults that acted
    while the job lived."""
    if job.outcome == "transcript" and job.found != job.text:
        return f"the wrong text: {job.found!r} instead of {job.text!r}"
    late = job.seconds - _longest(job, limits)
    if late > 0:
        return f"answered {late:.1f} s too late, with {job.outcome}"
    if job.outcome in _PROMISED[job.kind] or _excused(job, around, limits):
        return None
    return f"{job.outcome} is no honest answer to {job.kind}"


def _longest(job: "Job", limits: Limits) -> float:
    if job.timeout is not None:
        return job.timeout + limits.grace
    longest = limits.attempts * (limits.wait + limits.run) + limits.grace
    return longest + limits.patience if job.library else longest


def _excused(job: "Job", around: "list[Fault]", limits: Limits) -> bool:
    front = {fault.what for fault in around if fault.target == "front"}
    deaths = [f for f in around if f.target.startswith("worker") and f.what not in GENTLE]
    if job.outcome == "busy":
        return job.accepted is None
    if job.outcome == "shutting-down":
        return job.accepted is None and bool(front)
    if job.outcome == "lost":
        # A front that is asked to stop answers what it has accepted; one that is killed can't.
        return bool(front - GENTLE) or (bool(front) and job.accepted is None)
    if job.outcome == "worker-crashed":
        return len(deaths) >= limits.attempts
    if job.outcome == "deadline-exceeded":
        waited = (job.ended or 0) - job.born
        return waited >= (limits.wait if job.timeout is None else job.timeout) - 0.1
    return False
