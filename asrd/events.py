"""Every event between client and front, one frozen dataclass each: what the wire's `data` may hold.
asrd.workerevents has those of the other hop.

Names and Wyoming's own fields follow the Wyoming protocol; the rest is asrd's (docs/protocol.md).
No I/O, and nothing a peer says gets further than `parse` without being checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from asrd.errors import FieldError
from asrd.fields import (
    choice,
    either,
    field,
    flag,
    identifier,
    integer,
    nested,
    number,
    parse,
    sequence,
    string,
)

# Whisper's window is 30 s and its prompt 224 tokens: longer prompts are cut by the engine anyway.
_PROMPT = 4096
_DAY_MS = 24 * 3600 * 1000
WEEK_SECONDS = 7 * 24 * 3600.0
NAME_MAX = 256
SENTENCE_MAX = 4096
# A transcript's text: the largest data part is the true bound.
TEXT_MAX = 1 << 26


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How the bytes of a one-shot job are to be read. `file`: any container that PyAV decodes,
    which then says rate and channels itself."""

    encoding: str = field(choice("pcm_s16le", "pcm_f32le", "file"))
    sample_rate: int = field(integer(1000, 384_000), 16_000)
    channels: int = field(integer(1, 64), 1)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels; 0 where only the decoder knows (`file`)."""
        return {"pcm_s16le": 2, "pcm_f32le": 4, "file": 0}[self.encoding] * self.channels

    def seconds(self, size: int) -> float | None:
        """Length of `size` bytes; None for `file`.

        Raises FieldError where PCM is empty or does not end on a whole frame.
        """
        if self.encoding == "file":
            return None
        if size == 0:
            raise FieldError("audio", "is empty")
        if size % self.frame_bytes:
            raise FieldError(
                "audio",
                f"is {size} bytes, not a multiple of {self.frame_bytes} "
                f"({self.encoding}, {self.channels} channels)",
            )
        return size / self.frame_bytes / self.sample_rate


@dataclass(frozen=True, slots=True)
class Options:
    """faster-whisper's options of the same names; absent means the worker's default."""

    language: str | None = field(identifier(16), None)
    task: str = field(choice("transcribe", "translate"), "transcribe")
    beam_size: int | None = field(integer(1, 32), None)
    initial_prompt: str | None = field(string(_PROMPT), None)
    condition_on_previous_text: bool | None = field(flag, None)
    hotwords: str | None = field(string(_PROMPT), None)
    temperature: float | tuple[float, ...] | None = field(
        either(number(0, 2), sequence(number(0, 2), 16)), None
    )
    vad_filter: bool | None = field(flag, None)
    word_timestamps: bool | None = field(flag, None)


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


# --- asrd to a client -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """Times in seconds from the start of the recording; probability 0 to 1."""

    start: float = field(number(0, WEEK_SECONDS))
    end: float = field(number(0, WEEK_SECONDS))
    word: str = field(string(SENTENCE_MAX))
    probability: float = field(number(0, 1.001))


@dataclass(frozen=True, slots=True)
class Segment:
    """One of Whisper's segments; times in seconds from the start of the recording."""

    id: int = field(integer(0, 1 << 31))
    start: float = field(number(0, WEEK_SECONDS))
    end: float = field(number(0, WEEK_SECONDS))
    text: str = field(string(TEXT_MAX))
    avg_logprob: float | None = field(number(-1e6, 1e6), None)
    no_speech_prob: float | None = field(number(-0.001, 1.001), None)
    temperature: float | None = field(number(0, 2), None)
    compression_ratio: float | None = field(number(0, 1e6), None)
    words: tuple[Word, ...] | None = field(sequence(nested(Word), 1 << 20), None)


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
    audio_seconds_done: float = field(number(0, WEEK_SECONDS))
    audio_seconds: float | None = field(number(0, WEEK_SECONDS), None)


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


ClientEvent = (
    Transcribe | AudioStart | AudioChunk | AudioStop | Cancel | Describe | Ping | StatusRequest
)
AnswerEvent = Accepted | SegmentDecoded | Progress | Transcript | Error | CancelAnswer | Pong


def by_type(*classes: type) -> dict[str, type]:
    return {cls.TYPE: cls for cls in classes}  # type: ignore[attr-defined]


FROM_CLIENT = by_type(
    Transcribe, AudioStart, AudioChunk, AudioStop, Cancel, Describe, Ping, StatusRequest
)
TO_CLIENT = by_type(Accepted, SegmentDecoded, Progress, Transcript, Error, CancelAnswer, Pong)


def parse_event(table: Mapping[str, type], kind: str, data: Mapping[str, Any]) -> Any:
    """The event's dataclass, or None for a type that is not in `table` (to be ignored).

    Raises FieldError naming the field.
    """
    cls = table.get(kind)
    return None if cls is None else parse(cls, data)
