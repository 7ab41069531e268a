"""The scheduler's decisions, one frozen dataclass each; `Front._perform` carries them out. Pure."""

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
    """The end of a job: a Failure, or its worker's result, as `job_done` received it."""

    job: Job
    outcome: Any


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stops a job on its worker: its answer is no longer wanted."""

    worker: str
    key: int


@dataclass(frozen=True, slots=True)
class Wake:
    """Connects to a sleeping worker, which makes systemd start it."""

    worker: str


Action = Accept | Refuse | Start | Finish | Abandon | Wake
