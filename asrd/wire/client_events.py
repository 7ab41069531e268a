"""The events between client and front, one frozen dataclass each, with the fields of `data`.

asrd.wire.worker_events has the events of the other hop, asrd.wire.records the objects inside them.
Names and Wyoming's own fields follow the Wyoming protocol; the rest is asrd's (docs/protocol.md).
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

from asrd.wire.fields import (
    by_type,
    choice,
    field,
    flag,
    identifier,
    integer,
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
    Segment,
)

_DAY_MS = 24 * 3600 * 1000


# --- a client to asrd -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcribe:
    """A job. With `audio`, the recording is the payload or one descriptor; without it, a Wyoming
    stream follows. The same object also has the fields of `Options`.

    A gateway names the `user` that it speaks for. A `live` stream gets its text while it arrives,
    decoded again each `live_step_ms`; `final` says whether the transcript is that text, or the
    whole recording is decoded once more. After `end_of_speech_ms` of silence behind speech the
    stream ends as if its audio-stop had come.
    """

    TYPE: ClassVar = "transcribe"
    name: str | None = field(string(NAME_MAX), None)
    job_id: str | None = field(identifier(), None)
    trace_id: str | None = field(identifier(), None)
    audio: AudioFormat | None = field(nested(AudioFormat), None)
    timeout_ms: int | None = field(integer(1, _DAY_MS), None)
    stream: bool = field(flag, False)
    user: str | None = field(identifier(), None)
    live: bool = field(flag, False)
    live_step_ms: int = field(integer(250, 10_000), 1000)
    final: str = field(choice("live", "exact"), "live")
    end_of_speech_ms: int | None = field(integer(100, 60_000), None)
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
class SelectProgram:
    """Wyoming's: the program of `info` for the events that follow. There is one."""

    TYPE: ClassVar = "select-program"
    name: str = field(string(NAME_MAX))


@dataclass(frozen=True, slots=True)
class Ping:
    TYPE: ClassVar = "ping"
    text: str | None = field(string(SENTENCE_MAX), None)


@dataclass(frozen=True, slots=True)
class StatusRequest:
    TYPE: ClassVar = "status"
    crashes: bool = field(flag, False)
    jobs: bool = field(flag, False)


# --- asrd to a client -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    TYPE: ClassVar = "accepted"
    job_id: str = field(identifier())
    queue_depth: int = field(integer(0, 1 << 31), 0)


@dataclass(frozen=True, slots=True)
class SegmentDecoded:
    """A segment that will not change; `index` counts a job's segments from 0. `attempt` is the
    number of the attempt that decoded it."""

    TYPE: ClassVar = "segment"
    job_id: str = field(identifier())
    index: int = field(integer(0, 1 << 31))
    segment: Segment = field(nested(Segment))
    attempt: int = field(integer(1, 1 << 31), 1)


@dataclass(frozen=True, slots=True)
class Progress:
    """A job's progress. `audio_seconds` is absent if the length of a file is unknown."""

    TYPE: ClassVar = "progress"
    job_id: str = field(identifier())
    audio_seconds_done: float = field(number(0, WEEK_S))
    audio_seconds: float | None = field(number(0, WEEK_S), None)


@dataclass(frozen=True, slots=True)
class TranscriptStart:
    """The first event of a live stream's text. Wyoming's, but for `job_id`."""

    TYPE: ClassVar = "transcript-start"
    job_id: str | None = field(identifier(), None)
    language: str | None = field(identifier(16), None)


@dataclass(frozen=True, slots=True)
class TranscriptChunk:
    """Text of a live stream that will not change, said between `start` and `end` (seconds).

    `pending` is the text behind it so far, which may still change. Without new text, `text` is
    empty. All but `text` is asrd's own.
    """

    TYPE: ClassVar = "transcript-chunk"
    text: str = field(string(TEXT_MAX))
    job_id: str | None = field(identifier(), None)
    start: float | None = field(number(0, WEEK_S), None)
    end: float | None = field(number(0, WEEK_S), None)
    pending: str | None = field(string(TEXT_MAX), None)


@dataclass(frozen=True, slots=True)
class TranscriptStop:
    """The end of a live stream's text, after its transcript. Wyoming's."""

    TYPE: ClassVar = "transcript-stop"
    job_id: str | None = field(identifier(), None)


@dataclass(frozen=True, slots=True)
class Transcript:
    """The answer to a job. `text` and `language` are Wyoming's; durations in milliseconds."""

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
    attempts: int = field(integer(1, 1 << 31), 1)
    model: str | None = field(string(NAME_MAX), None)
    segments: tuple[Segment, ...] = field(sequence(nested(Segment), 1 << 20), ())
    warnings: tuple[JobWarning, ...] = field(sequence(nested(JobWarning), WARNINGS_MAX), ())


@dataclass(frozen=True, slots=True)
class Error:
    """A failure of a job; without `job_id`, of the connection or of a malformed event."""

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
    """The answer to a `cancel` for jobs of another connection; `jobs` is the number it ended."""

    TYPE: ClassVar = "cancelled"
    job_id: str = field(identifier())
    jobs: int = field(integer(0, 1 << 31))


@dataclass(frozen=True, slots=True)
class Pong:
    TYPE: ClassVar = "pong"
    text: str | None = field(string(SENTENCE_MAX), None)


Question = Describe | SelectProgram | Ping | StatusRequest
ClientEvent = Transcribe | AudioStart | AudioChunk | AudioStop | Cancel | Question
LiveEvent = TranscriptStart | TranscriptChunk | TranscriptStop
AnswerEvent = (
    Accepted | SegmentDecoded | Progress | LiveEvent | Transcript | Error | CancelAnswer | Pong
)

FROM_CLIENT = by_type(*get_args(ClientEvent))
TO_CLIENT = by_type(*get_args(AnswerEvent))
