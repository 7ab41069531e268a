"""A job as the scheduler knows it, and what it needs of a worker's model. Pure."""

import math
from dataclasses import dataclass
from typing import Any

from asrd.wire.peer import User


@dataclass(frozen=True, slots=True)
class Needs:
    """`model` is a name as the client wrote it, None for any; without a `language` it is
    detected."""

    model: str | None = None
    language: str | None = None
    translate: bool = False
    word_timestamps: bool = False
    multilingual: bool = False


@dataclass(eq=False, slots=True)
class Job:
    """Times are in seconds of the caller's clock, `size` in bytes.

    `seconds` is the length of the audio, 0 if unknown; `timeout` counts from `arrival`; `order` is
    the job's place among all that the queue ever had. `waits_since` is the time of its arrival, of
    its worker's death, or of the drain. `request` is the caller's own record.
    """

    user: User
    arrival: float
    needs: Needs = Needs()
    size: int = 0
    seconds: float = 0.0
    timeout: float | None = None
    order: int = 0
    waits_since: float = 0.0
    attempts: int = 0
    started_at: float = 0.0
    deadline: float = math.inf
    worker: str | None = None
    ended: bool = False
    request: Any = None
