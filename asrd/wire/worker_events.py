"""Every event between front and worker; see asrd.wire.client_events for the other hop.

`key` is the front's own number for one attempt at one job, never used twice, so that
an answer that comes late can't be taken for another job's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

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
from asrd.wire.records import (
    NAME_MAX,
    SENTENCE_MAX,
    TEXT_MAX,
    WARNINGS_MAX,
    WEEK_S,
    AudioFormat,
    JobWarning,
    LastProcess,
    Options,
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
    """The front no longer wants the answer."""

    TYPE: ClassVar = "cancel"
    key: int = field(integer(0, 1 << 53))


@dataclass(frozen=True, slots=True)
class Loading:
    """The worker lives and has begun to load its model. Sent again with what the model's files say
    of its skills (see Hello), as soon as they were looked at; without `languages` before that."""

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
    """A sign of life, whatever the engine does, every `alive_seconds` once it is loaded. `key`: the
    job at hand, `audio_seconds` its audio's length if known, `stalled_seconds` how long it has not
    moved if that is too long."""

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
    # Passed on as it is: the front has no use for a segment, the client's library checks them.
    segments: tuple[dict[str, Any], ...] = field(sequence(mapping, 1 << 20), ())
    warnings: tuple[JobWarning, ...] = field(sequence(nested(JobWarning), WARNINGS_MAX), ())


@dataclass(frozen=True, slots=True)
class Failed:
    """`fatal`: the process is poisoned (a CUDA error) and ends after this; counts as a crash."""

    TYPE: ClassVar = "failed"
    key: int = field(integer(0, 1 << 53))
    code: str = field(identifier(64))
    text: str = field(string(SENTENCE_MAX))
    fatal: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class CannotLoad:
    """The worker can never serve as it is configured; it exits with 78 (EX_CONFIG) after this."""

    TYPE: ClassVar = "cannot-load"
    text: str = field(string(SENTENCE_MAX))


@dataclass(frozen=True, slots=True)
class Bye:
    """The worker ends of its own will and has started no job that it has not answered."""

    TYPE: ClassVar = "bye"
    reason: str = field(choice("idle", "stopping"))


WorkerEvent = Loading | Hello | Alive | JobSegment | JobProgress | Done | Failed | CannotLoad | Bye
FrontEvent = StartJob | CancelJob

FROM_WORKER = by_type(Loading, Hello, Alive, JobSegment, JobProgress, Done, Failed, CannotLoad, Bye)
TO_WORKER = by_type(StartJob, CancelJob)
