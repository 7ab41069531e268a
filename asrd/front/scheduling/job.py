"""A job as the scheduler knows it, and what it needs of a worker's model. Pure."""

import math
from dataclasses import dataclass
from typing import Any

from asrd.wire.peer import User
from asrd.wire.records import is_long


@dataclass(frozen=True, slots=True)
class Needs:
    """`model` is a name as the client wrote it, None for any; without a `language` it is
    detected."""

    model: str | None = None
    language: str | None = None
    translate: bool = False
    word_timestamps: bool = False
    multilingual: bool = False
    speech: bool = False
    speakers: bool = False

    @property
    def text(self) -> bool:
        """True if the answer has a text, or at least its language."""
        return not (self.speech or self.speakers)


@dataclass(eq=False, slots=True)
class Job:
    """Times are in seconds of the caller's clock, `size` in bytes.

    `seconds` is the length of the audio, 0 if unknown; `timeout` counts from `arrival`; `order` is
    the job's place among all that the queue ever had. TimeLimits sets `deadline` and the next four.

    `worker` and `key` say where it runs, `attempts` counts its starts. `model` is that of the
    worker that made its last checkpoint, None without one. `deaths` counts the workers that died in
    its turn since then. In seconds of audio: `kept` is the place of the last checkpoint,
    `resumed_at` where this attempt began, `done` what its worker reported last.

    `step`: a step of a live stream, which is no job of its user's (rule 12). `stranger`: its user
    is an address, and one host may have many.

    `work` is the time of its own turns in all attempts, `work_before` that of earlier ones, and
    `planned` an estimate of the next window's. `request` is the caller's own record.
    """

    user: User
    arrival: float
    needs: Needs = Needs()
    size: int = 0
    seconds: float = 0.0
    timeout: float | None = None
    order: int = 0
    deadline: float = math.inf
    since: float = 0.0
    wait_left: float = math.inf
    load_left: float = 0.0
    held_up: bool = False
    key: int = 0
    worker: str | None = None
    attempts: int = 0
    model: str | None = None
    deaths: int = 0
    started_at: float = 0.0
    kept: float = 0.0
    resumed_at: float = 0.0
    done: float = 0.0
    work: float = 0.0
    work_before: float = 0.0
    planned: float = 0.0
    ended: bool = False
    step: bool = False
    stranger: bool = False
    request: Any = None

    @property
    def long(self) -> bool:
        return is_long(self.seconds or None, self.done, self.size)
