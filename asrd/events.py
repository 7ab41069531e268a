"""Every event on both hops, one frozen dataclass each: what the wire's `data` may hold.

Names and Wyoming's own fields follow the Wyoming protocol; the rest is asrd's (docs/protocol.md).
No I/O, and nothing a peer says gets further than `parse` without being checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from asrd.fields import (
    choice,
    field,
    flag,
    identifier,
    integer,
    mapping,
    nested,
    number,
    parse,
    sequence,
    string,
)
from asrd.records import NAME_MAX, TEXT_MAX, WEEK_S, LastProcess
from asrd.records import SENTENCE_MAX as SENTENCE_MAX
from asrd.records import AudioFormat as AudioFormat
from asrd.records import Options as Options
from asrd.records import Segment as Segment
from asrd.records import Word as Word

PROTOCOL_VERSION = 1

_DAY_MS = 24 * 3600 * 1000


# --- a client to asrd -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcribe:
    """A job. With `audio` it is one shot (the bytes are the payload or one descriptor), without
    it a Wyoming stream follows. Whisper's options stand beside these fields: see `Options`."""

    TYPE: ClassVar = "transcribe"
    name: str | None = field(string(NAME_MAX), None)
    job_id: str | None = field(identifier(), None)
    trace_id: str | None = field(identifier(), None)
    audio: AudioFormat | None = field(nested(AudioFormat), None)
    timeout_ms: int | None = field(integer(1, _DAY_MS), None)
    stream: bool = field(flag, False)
    transcript_names: tuple[str, ...] = field(sequence(string(NAME_MAX), 1000), ())
    transcript_terms: tuple[str, ...] = field(sequence(string(NAME_MAX), 1000), ())


@dataclass(frozen=True, slots=True)
class AudioStart:
    TYPE: ClassVar = "audio-start"
    rate: int = field(integer(1000, 384_000))
    width: int = field(integer(2, 2))
    channels: int = field(integer(1, 64))


@dataclass(frozen=True, slots=True)
class AudioChunk:
    TYPE: ClassVar = "audio-chunk"
    rate: int = field(integer(1000, 384_000))
    width: int = field(integer(2, 2))
    channels: int = field(integer(1, 64))


@dataclass(frozen=True, slots=True)
class AudioStop:
    TYPE: ClassVar = "audio-stop"


@dataclass(frozen=True, slots=True)
class Cancel:
    TYPE: ClassVar = "cancel"
    job_id: str = field(identifier())


@dataclass(frozen=True, slots=True)
class Describe:
    TYPE: ClassVar = "describe"


@dataclass(frozen=True, slots=True)
class Ping:
    TYPE: ClassVar = "ping"
    text: str | None = field(string(SENTENCE_MAX), None)


@dataclass(frozen=True, slots=True)
class StatusRequest:
    TYPE: ClassVar = "status"
    crashes: bool = field(flag, False)


# --- asrd to a client -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    TYPE: ClassVar = "accepted"
    job_id: str = field(identifier())
    queue_depth: int = field(integer(0, 1 << 31), 0)


@dataclass(frozen=True, slots=True)
class SegmentDecoded:
    """`index` counts a job's segments from 0: a retry repeats them under the same index."""

    TYPE: ClassVar = "segment"
    job_id: str = field(identifier())
    index: int = field(integer(0, 1 << 31))
    segment: Segment = field(nested(Segment))


@dataclass(frozen=True, slots=True)
class Progress:
    """`audio_seconds` is absent while the length of a file is not known."""

    TYPE: ClassVar = "progress"
    job_id: str = field(identifier())
    audio_seconds_done: float = field(number(0, WEEK_S))
    audio_seconds: float | None = field(number(0, WEEK_S), None)


@dataclass(frozen=True, slots=True)
class Transcript:
    """The answer. `text` and `language` are Wyoming's; durations in milliseconds."""

    TYPE: ClassVar = "transcript"
    text: str = field(string(TEXT_MAX))
    job_id: str | None = field(identifier(), None)
    trace_id: str | None = field(identifier(), None)
    language: str | None = field(identifier(16), None)
    language_probability: float | None = field(number(0, 1.001), None)
    duration_ms: int = field(integer(0, 7 * _DAY_MS), 0)
    queue_ms: int = field(integer(0, 7 * _DAY_MS), 0)
    run_ms: int = field(integer(0, 7 * _DAY_MS), 0)
    worker: str | None = field(identifier(), None)
    attempts: int = field(integer(1, 100), 1)
    model: str | None = field(string(NAME_MAX), None)
    segments: tuple[Segment, ...] = field(sequence(nested(Segment), 1 << 20), ())


@dataclass(frozen=True, slots=True)
class Error:
    """A failure. Without `job_id` it is about the connection or a malformed event."""

    TYPE: ClassVar = "error"
    text: str = field(string(SENTENCE_MAX))
    code: str = field(identifier(64))
    job_id: str | None = field(identifier(), None)
    trace_id: str | None = field(identifier(), None)
    retryable: bool = field(flag, False)
    retry_after_ms: int | None = field(integer(0, _DAY_MS), None)
    phase: str | None = field(choice("queue", "run"), None)


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """Answers a `cancel` that named a job of another connection; `jobs` is how many it ended."""

    TYPE: ClassVar = "cancelled"
    job_id: str = field(identifier())
    jobs: int = field(integer(0, 1 << 31))


@dataclass(frozen=True, slots=True)
class Pong:
    TYPE: ClassVar = "pong"
    text: str | None = field(string(SENTENCE_MAX), None)


# --- the front to a worker, and back ------------------------------------------------------------
# `key` is the front's own number for one attempt at one job, never used twice, so that
# an answer that comes late can't be taken for another job's.


@dataclass(frozen=True, slots=True)
class Job:
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
    """The worker lives and has begun to load its model."""

    TYPE: ClassVar = "loading"
    pid: int = field(integer(1, 1 << 31))
    model: str = field(string(NAME_MAX))
    last: LastProcess | None = field(nested(LastProcess), None)


@dataclass(frozen=True, slots=True)
class Hello:
    """The model is loaded and warm: the worker takes jobs."""

    TYPE: ClassVar = "hello"
    version: int = field(integer(1, 1 << 31))
    pid: int = field(integer(1, 1 << 31))
    model: str = field(string(NAME_MAX))
    languages: tuple[str, ...] = field(sequence(identifier(16), 1000))
    device: str = field(identifier(64))
    compute_type: str = field(identifier(64))
    slots: int = field(integer(1, 256), 1)
    load_seconds: float = field(number(0, 1e6), 0.0)
    last: LastProcess | None = field(nested(LastProcess), None)
    alive_seconds: float | None = field(number(0.05, 3600), None)


@dataclass(frozen=True, slots=True)
class Alive:
    """The main thread's sign of life, every `alive_seconds` once it is loaded. `key`: the job at
    hand, `audio_seconds` its audio's length if known, `stalled_seconds` how long it has not moved
    if that is too long."""

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


ClientEvent = (
    Transcribe | AudioStart | AudioChunk | AudioStop | Cancel | Describe | Ping | StatusRequest
)
AnswerEvent = Accepted | SegmentDecoded | Progress | Transcript | Error | CancelAnswer | Pong
WorkerEvent = Loading | Hello | Alive | JobSegment | JobProgress | Done | Failed | CannotLoad | Bye
FrontEvent = Job | CancelJob


def _by_type(*classes: type) -> dict[str, type]:
    return {cls.TYPE: cls for cls in classes}  # type: ignore[attr-defined]


FROM_CLIENT = _by_type(
    Transcribe, AudioStart, AudioChunk, AudioStop, Cancel, Describe, Ping, StatusRequest
)
TO_CLIENT = _by_type(Accepted, SegmentDecoded, Progress, Transcript, Error, CancelAnswer, Pong)
FROM_WORKER = _by_type(
    Loading, Hello, Alive, JobSegment, JobProgress, Done, Failed, CannotLoad, Bye
)
TO_WORKER = _by_type(Job, CancelJob)


def parse_event(table: Mapping[str, type], kind: str, data: Mapping[str, Any]) -> Any:
    """The event's dataclass, or None for a type that is not in `table` (to be ignored).

    Raises FieldError naming the field.
    """
    cls = table.get(kind)
    return None if cls is None else parse(cls, data)
