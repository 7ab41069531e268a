"""What events carry: one frozen dataclass for each kind of object inside them. No I/O."""

from dataclasses import dataclass

from asrd.errors import FieldError
from asrd.wire.fields import (
    choice,
    either,
    field,
    flag,
    identifier,
    integer,
    nested,
    number,
    sequence,
    string,
    text_or,
)
from asrd.wire.languages import language

# Whisper's prompt has 223 tokens: longer prompts are cut by the engine anyway.
PROMPT_MAX = 4096
WEEK_S = 7 * 24 * 3600.0
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
    """faster-whisper's options of the same names; absent means the worker's default.

    asrd's own: `audio_track` chooses a file's audio track, by its number among the audio tracks
    (from 0) or by language (`ger`, `de`); `require_complete` makes a recording that was broken off
    `bad-audio` instead of a warning; `split_channels` transcribes each channel by itself.
    """

    language: str | None = field(language, None)
    task: str = field(choice("transcribe", "translate"), "transcribe")
    beam_size: int | None = field(integer(1, 32), None)
    initial_prompt: str | None = field(string(PROMPT_MAX), None)
    condition_on_previous_text: bool | None = field(flag, None)
    hotwords: str | None = field(string(PROMPT_MAX), None)
    temperature: float | tuple[float, ...] | None = field(
        either(number(0, 2), sequence(number(0, 2), 16)), None
    )
    vad_filter: bool | None = field(flag, None)
    word_timestamps: bool | None = field(flag, None)
    audio_track: int | str | None = field(text_or(integer(0, 1000), identifier(16)), None)
    require_complete: bool | None = field(flag, None)
    split_channels: bool | None = field(flag, None)


@dataclass(frozen=True, slots=True)
class Word:
    """Times in seconds from the start of the recording; probability 0 to 1."""

    start: float = field(number(0, WEEK_S))
    end: float = field(number(0, WEEK_S))
    word: str = field(string(SENTENCE_MAX))
    probability: float = field(number(0, 1.001))


@dataclass(frozen=True, slots=True)
class Segment:
    """One of Whisper's segments; times in seconds from the start of the recording."""

    id: int = field(integer(0, 1 << 31))
    start: float = field(number(0, WEEK_S))
    end: float = field(number(0, WEEK_S))
    text: str = field(string(TEXT_MAX))
    avg_logprob: float | None = field(number(-1e6, 1e6), None)
    no_speech_prob: float | None = field(number(-0.001, 1.001), None)
    temperature: float | None = field(number(0, 2), None)
    compression_ratio: float | None = field(number(0, 1e6), None)
    words: tuple[Word, ...] | None = field(sequence(nested(Word), 1 << 20), None)
    channel: int | None = field(integer(0, 64), None)


@dataclass(frozen=True, slots=True)
class JobWarning:
    """Something that a client should know about a good transcript. `code` is one of WarningCode;
    `claimed_seconds` is the length that the file states, `read_seconds` what was read of it."""

    code: str = field(identifier(64))
    text: str = field(string(SENTENCE_MAX))
    claimed_seconds: float | None = field(number(0, WEEK_S), None)
    read_seconds: float | None = field(number(0, WEEK_S), None)


# A transcript carries no more than this many warnings.
WARNINGS_MAX = 32


@dataclass(frozen=True, slots=True)
class LastProcess:
    """Of the process that a worker comes after, what the service manager knows: how it ended, and
    the last that the engine wrote to stderr."""

    exit: str | None = field(string(NAME_MAX), None)
    pid: int | None = field(integer(1, 1 << 31), None)
    stderr: str | None = field(string(1000), None)
