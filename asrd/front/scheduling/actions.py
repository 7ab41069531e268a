"""What the scheduler wants done, one frozen dataclass each; `Front._perform` does it. Pure."""

from dataclasses import dataclass
from typing import Any

from asrd.errors import Code
from asrd.front.scheduling.job import Job


@dataclass(frozen=True, slots=True)
class Failure:
    code: Code
    text: str
    phase: str | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Accept:
    job: Job
    queue_depth: int


@dataclass(frozen=True, slots=True)
class Refuse:
    job: Job
    failure: Failure


@dataclass(frozen=True, slots=True)
class Start:
    job: Job
    worker: str
    key: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The job's end: a Failure, or what its worker answered, as it was given to `job_done`."""

    job: Job
    outcome: Any


@dataclass(frozen=True, slots=True)
class Abandon:
    """Tell the worker that nobody wants this answer any more."""

    worker: str
    key: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Connect to a worker that is asleep: systemd starts it."""

    worker: str


Action = Accept | Refuse | Start | Finish | Abandon | Wake
