"""The types between the worker and its engine. Imports nothing heavy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from asrd.wire.fds import Closing
from asrd.wire.records import AudioFormat, JobWarning, Options, Segment

OnSegment = Callable[[Segment], None]
# (seconds of the recording that are done, its length if known): a sign of life, too.
OnProgress = Callable[[float, float | None], None]


@dataclass(frozen=True, slots=True)
class Transcription:
    """Plain data. `audio_seconds` is the length of the whole recording, silence included."""

    text: str
    language: str
    language_probability: float
    audio_seconds: float
    segments: tuple[Segment, ...]
    warnings: tuple[JobWarning, ...] = ()


class Engine(Protocol):
    """The engine as the worker sees it; one thread calls `run`, another may call `prepare`."""

    model: str
    languages: tuple[str, ...]
    translate: bool
    word_timestamps: bool
    device: str
    compute_type: str
    load_seconds: float

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: OnProgress,
    ) -> Closing:
        """Everything that can be done without the model. `fd` stays the caller's, and open until
        the result is closed.

        Raises BadAudio, TooLarge, BadRequest, OutOfMemory, and what the callback raises.
        """

    def run(self, prepared: Any, on_progress: OnProgress, on_segment: OnSegment) -> Transcription:
        """Transcribe what `prepare` returned, which stays the caller's to close.

        Raises as `prepare` does; Poisoned if the process must end.
        """
