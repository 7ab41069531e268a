"""The scheduler's record of a job. Pure."""

import math
from dataclasses import dataclass
from typing import Any

from asrd.front.scheduling.needs import Needs
from asrd.wire.peer import User


@dataclass(eq=False, slots=True)
class Job:
    """What the scheduler knows of a job; times in seconds of the caller's clock.

    `size` in bytes and `seconds` (0 if unknown) are the audio's; `timeout` counts from `arrival`;
    `order` is its place among all that came; `waits_since` is when it came, or was put back after a
    crash; `request` is the caller's own record and not looked at here.
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
