"""The events between front and worker; asrd.wire.client_events has those of the other hop.

`key` is the front's number for one attempt at one job. It is never used twice, so that a late
answer is never taken for another job's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from asrd.wire.fields import (
    by_type,
    choice,
    field,
    flag,
    identifier,
    integer,
    mapping,
    nested,
    number,
    sequence,
    string,
)
from asrd.wire.options import Options
from asrd.wire.records import (
    NAME_MAX,
    SENTENCE_MAX,
    TEXT_MAX,
    WARNINGS_MAX,
    WEEK_S,
    AudioFormat,
    JobWarning,
    LastProcess,
)

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True)
class StartJob:
    """Always with exactly one descriptor: the audio, `size` bytes long when it was accepted."""

    TYPE: ClassVar = "job"
    key: int = field(integer(0, 1 << 53))
    job_id: str = field(identifier())
    audio: AudioFormat = field(nested(AudioFormat))
    options: Options = field(nested(Options))
    size: int = field(integer(0, 1 << 53))
    trace_id: str | None = field(identifier(), None)
    stream: bool = field(flag, False)
    max_audio_seconds: float = field(number(0, WEEK_S), WEEK_S)


@dataclass(frozen=True, slots=True)
class CancelJob:
    """The front no longer needs the answer."""

    TYPE: ClassVar = "cancel"
    key: int = field(integer(0, 1 << 53))


@dataclass(frozen=True, slots=True)
class Loading:
    """The worker has started to load its model. Sent a second time, with `languages` and the other
    skills (see Hello), after the worker has read the model's files."""

    TYPE: ClassVar = "loading"
    pid: int = field(integer(1, 1 << 31))
    model: str = field(string(NAME_MAX))
    last: LastProcess | None = field(nested(LastProcess), None)
    languages: tuple[str, ...] = field(sequence(identifier(16), 1000), ())
    translate: bool = field(flag, True)
    word_timestamps: bool = field(flag, True)


@dataclass(frozen=True, slots=True)
class Hello:
    """The model is loaded and warm: the worker takes jobs. `languages`, `translate` and
    `word_timestamps` are the model's skills. `spare`: in reserve for others with this model."""

    TYPE: ClassVar = "hello"
    version: int = field(integer(1, 1 << 31))
    pid: int = field(integer(1, 1 << 31))
    model: str = field(string(NAME_MAX))
    languages: tuple[str, ...] = field(sequence(identifier(16), 1000))
    device: str = field(identifier(64))
    compute_type: str = field(identifier(64))
    spare: bool = field(flag, False)
    load_seconds: float = field(number(0, 1e6), 0.0)
    last: LastProcess | None = field(nested(LastProcess), None)
    alive_seconds: float | None = field(number(0.05, 3600), None)
    translate: bool = field(flag, True)
    word_timestamps: bool = field(flag, True)


@dataclass(frozen=True, slots=True)
class Alive:
    """A sign of life every `alive_seconds` after the model is loaded, also while the engine runs.

    `key` is the running job, `audio_seconds` the length of its audio if known, `stalled_seconds`
    the time without progress if it is too long.
    """

    TYPE: ClassVar = "alive"
    key: int | None = field(integer(0, 1 << 53), None)
    audio_seconds: float | None = field(number(0, WEEK_S), None)
    stalled_seconds: float = field(number(0, WEEK_S), 0.0)


@dataclass(frozen=True, slots=True)
class JobSegment:
    TYPE: ClassVar = "segment"
    key: int = field(integer(0, 1 << 53))
    index: int = field(integer(0, 1 << 31))
    segment: dict[str, Any] = field(mapping)


@dataclass(frozen=True, slots=True)
class JobProgress:
    TYPE: ClassVar = "progress"
    key: int = field(integer(0, 1 << 53))
    audio_seconds_done: float = field(number(0, WEEK_S))
    audio_seconds: float | None = field(number(0, WEEK_S), None)


@dataclass(frozen=True, slots=True)
class Done:
    TYPE: ClassVar = "done"
    key: int = field(integer(0, 1 << 53))
    text: str = field(string(TEXT_MAX))
    language: str = field(identifier(16))
    language_probability: float = field(number(0, 1.001))
    audio_seconds: float = field(number(0, WEEK_S))
    run_seconds: float = field(number(0, WEEK_S))
    # Passed on unchecked: the client's library checks segments.
    segments: tuple[dict[str, Any], ...] = field(sequence(mapping, 1 << 20), ())
    warnings: tuple[JobWarning, ...] = field(sequence(nested(JobWarning), WARNINGS_MAX), ())


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed job. `fatal`: the process is unusable (a CUDA error) and ends: a crash."""

    TYPE: ClassVar = "failed"
    key: int = field(integer(0, 1 << 53))
    code: str = field(identifier(64))
    text: str = field(string(SENTENCE_MAX))
    fatal: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class CannotLoad:
    """The model can't be loaded. The worker exits: with 78 if it is configured wrong, else 70."""

    TYPE: ClassVar = "cannot-load"
    text: str = field(string(SENTENCE_MAX))


@dataclass(frozen=True, slots=True)
class Bye:
    """The worker exits on its own; it has answered every job that it has started."""

    TYPE: ClassVar = "bye"
    reason: str = field(choice("idle", "stopping"))


WorkerEvent = Loading | Hello | Alive | JobSegment | JobProgress | Done | Failed | CannotLoad | Bye
FrontEvent = StartJob | CancelJob

FROM_WORKER = by_type(*get_args(WorkerEvent))
TO_WORKER = by_type(*get_args(FrontEvent))
