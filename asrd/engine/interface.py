"""The types between the worker and its engine. Light: a worker imports them before the engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from asrd.wire.fds import Closing
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, JobWarning, Segment

OnSegment = Callable[[Segment], None]
# Gets the seconds of the recording that are done, and its length once that is known. An exception
# from it ends the job.
OnProgress = Callable[[float, float | None], None]
# A job that is open, checked and decoded as far as its first window.
Prepared = TypeVar("Prepared", bound=Closing)


@dataclass(frozen=True, slots=True)
class Transcription:
    """The result of a job; `audio_seconds` is the length of its recording, silence included."""

    text: str
    language: str
    language_probability: float
    audio_seconds: float
    segments: tuple[Segment, ...]
    warnings: tuple[JobWarning, ...] = ()


class Engine(Protocol[Prepared]):
    """The engine as the worker sees it. All calls come from one thread."""

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
    ) -> Prepared:
        """Does everything that needs no model. `fd` stays the caller's, and open until the result
        is closed.

        Raises BadAudio, TooLarge, BadRequest, OutOfMemory, and what the callback raises.
        """

    def run(
        self, prepared: Prepared, on_progress: OnProgress, on_segment: OnSegment
    ) -> Transcription:
        """Transcribes what `prepare` returned, which stays the caller's to close.

        Raises as `prepare` does; Poisoned if the process must end.
        """
