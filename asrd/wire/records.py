"""The objects inside events, one frozen dataclass each. Pure."""

from dataclasses import dataclass

from asrd.errors import FieldError
from asrd.wire.fields import (
    choice,
    field,
    identifier,
    integer,
    nested,
    number,
    sequence,
    string,
)
from asrd.wire.languages import language
from asrd.wire.options import Options

WEEK_S = 7 * 24 * 3600.0
NAME_MAX = 256
SENTENCE_MAX = 4096
# A transcript's text. The limit of the data part is lower.
TEXT_MAX = 1 << 26
_SPEAKER_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The format of a one-shot job's bytes: rate in Hz, interleaved channels.

    `file` is any container that PyAV decodes; the container states its own rate and channels.
    """

    encoding: str = field(choice("pcm_s16le", "pcm_f32le", "file"))
    sample_rate: int = field(integer(1000, 384_000), 16_000)
    channels: int = field(integer(1, 64), 1)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels; 0 for `file`."""
        return {"pcm_s16le": 2, "pcm_f32le": 4, "file": 0}[self.encoding] * self.channels

    def seconds(self, size: int) -> float | None:
        """Returns the length of `size` bytes in seconds, None for `file`.

        Raises FieldError for PCM that is empty or does not end on a whole frame.
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
class Word:
    """A word: times in seconds from the start of the recording, probability 0 to 1. `speaker` is
    that of its segment (asrd.client.speakers)."""

    start: float = field(number(0, WEEK_S))
    end: float = field(number(0, WEEK_S))
    word: str = field(string(SENTENCE_MAX))
    probability: float = field(number(0, 1.001))
    speaker: int | None = field(integer(0, _SPEAKER_MAX), None)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of Whisper: times in seconds from the start of the recording.

    On request: `seek` is the start of its window in frames of 10 ms (of the speech alone with
    vad_filter), `tokens` are the model's numbers for its text and times. With `multilingual`,
    `language` is that of its window. With the task `speakers`, `speaker` is the number of a speaker
    of this recording, from 0 in the order of their first turns.
    """

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
    seek: int | None = field(integer(0, 1 << 31), None)
    tokens: tuple[int, ...] | None = field(sequence(integer(0, 1 << 20), 1 << 20), None)
    language: str | None = field(language, None)
    speaker: int | None = field(integer(0, _SPEAKER_MAX), None)


# The audio that Whisper hears at once.
WINDOW_SECONDS = 30.0
# A file of more bytes counts as long until it has been opened: half a minute of stereo WAV at
# 48 kHz has fewer.
_LARGE_FILE = 6 << 20


def is_long(seconds: float | None, done: float, size: int) -> bool:
    """Returns True if a job takes more than one more window, as far as known: `done` of `seconds`
    of its audio, which has `size` bytes, are done."""
    if seconds is None:
        return size > _LARGE_FILE or done > WINDOW_SECONDS
    return seconds - done > WINDOW_SECONDS


# The text before a window that a model is prompted with: at most twice Whisper's own limit.
_PROMPT_TOKENS_MAX = 446


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a job before one of its windows, from which another worker can go on.

    `frame` (of 10 ms, of the speech alone with vad_filter) is the window's start, `seconds` its
    place in the recording; all segments before it, `segments` in number, are done. `tokens` are the
    text before it, as far as it prompts the window, `peak` is the decimal logarithm of the greatest
    power that is known, and `last_speech` the end of the last word in seconds. Without `language`
    it is still to be detected. `options` are the job's with the worker's defaults: another worker
    may have others, and `frame` would be another place.
    """

    frame: int = field(integer(0, 1 << 31))
    seconds: float = field(number(0, WEEK_S))
    segments: int = field(integer(0, 1 << 20))
    tokens: tuple[int, ...] = field(sequence(integer(0, 1 << 20), _PROMPT_TOKENS_MAX), ())
    language: str | None = field(language, None)
    language_probability: float = field(number(0, 1.001), 0.0)
    peak: float = field(number(-1000, 1000), -10.0)
    last_speech: float = field(number(0, WEEK_S), 0.0)
    options: Options | None = field(nested(Options), None)


@dataclass(frozen=True, slots=True)
class JobWarning:
    """A warning about a good transcript: `code` is one of WarningCode.

    `claimed_seconds` is the length that the file states, `read_seconds` the length that was read.
    """

    code: str = field(identifier(64))
    text: str = field(string(SENTENCE_MAX))
    claimed_seconds: float | None = field(number(0, WEEK_S), None)
    read_seconds: float | None = field(number(0, WEEK_S), None)


# The most warnings of one transcript.
WARNINGS_MAX = 32


@dataclass(frozen=True, slots=True)
class LastProcess:
    """The worker's previous process, as the service manager reports it: how it exited, and the last
    line that the engine wrote to stderr."""

    exit: str | None = field(string(NAME_MAX), None)
    pid: int | None = field(integer(1, 1 << 31), None)
    stderr: str | None = field(string(1000), None)
