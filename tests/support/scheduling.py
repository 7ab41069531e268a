"""Schedulers and jobs for the examples of the scheduler's rules."""

from typing import Any

from asrd.errors import Code
from asrd.front.scheduling import actions
from asrd.front.scheduling.actions import Failure, Refuse, Start
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.scheduler import Scheduler
from asrd.settings import FrontSettings


def scheduler(*ready: str, **settings: Any) -> Scheduler:
    """A scheduler with ready workers of these names, which have the model `tiny`."""
    made = Scheduler(FrontSettings(**settings))
    for name in ready:
        made.worker_added(name, 0.0)
        made.worker_ready(name, "tiny", 0.0)
    return made


def turning(*names: str, slots: int = 2, longest: float = 0.0, **settings: Any) -> Scheduler:
    """A scheduler with ready workers, whose jobs take turns."""
    made = scheduler(*names, **settings)
    for name in names:
        made.worker_ready(name, "tiny", 0.0, slots=slots, max_audio_seconds=longest)
    return made


def hour(uid: int = 1, **fields: Any) -> Job:
    return job(uid, seconds=3600.0, size=115_200_000, **fields)


def command(uid: int = 2, **fields: Any) -> Job:
    return job(uid, seconds=3.0, size=96_000, **fields)


def starts(found: list[actions.Action]) -> list[tuple[int, str]]:
    """The keys of the jobs that were started, and where."""
    return [(one.key, one.worker) for one in found if isinstance(one, Start)]


def job(uid: int = 1, **fields: Any) -> Job:
    return Job(uid, 0.0, **fields)


def kinds(found: list[actions.Action]) -> list[str]:
    """The kinds of these actions, with the code of those that end a job badly."""
    outcomes = [getattr(one, "outcome", getattr(one, "failure", None)) for one in found]
    codes = [f" {one.code}" if isinstance(one, Failure) else "" for one in outcomes]
    return [type(one).__name__ + code for one, code in zip(found, codes, strict=True)]


def refusal(it: Scheduler, refused: Job, now: float = 1.0) -> tuple[Code, str]:
    (refuse,) = it.submit(refused, now)
    assert isinstance(refuse, Refuse)
    return refuse.failure.code, refuse.failure.text
