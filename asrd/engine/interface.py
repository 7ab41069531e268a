"""The types between the worker and its engine. Light: a worker imports them before the engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from asrd.wire.fds import Closing
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Checkpoint, JobWarning, Segment

OnSegment = Callable[[Segment], None]
# Called before each window but a job's first, when all segments before it were reported.
OnCheckpoint = Callable[[Checkpoint], None]
# Gets the seconds of the recording that are done, and its length once that is known. Called before
# each block that is read and each call of the model. It may wait while other jobs have their turns;
# an exception from it ends the job.
OnProgress = Callable[[float, float | None], None]
# A job that is open, checked and decoded as far as its first window.
Prepared = TypeVar("Prepared", bound=Closing)


@dataclass(frozen=True, slots=True)
class Transcription:
    """The result of a job; `audio_seconds` is the length of its recording, silence included.

    The tasks `speech` and `speakers` find no language. Of a job that was resumed, `text` and
    `segments` are those of this attempt alone.
    """

    text: str
    language: str | None
    language_probability: float
    audio_seconds: float
    segments: tuple[Segment, ...]
    warnings: tuple[JobWarning, ...] = ()


class Engine(Protocol[Prepared]):
    """The engine as the worker sees it. Each job has a thread, but only one of them runs: the
    others wait in `on_progress`."""

    model: str
    languages: tuple[str, ...]
    translate: bool
    word_timestamps: bool
    # The tasks `speech` and `speakers`.
    speech: bool
    speakers: bool
    device: str
    compute_type: str
    # Of one inference; 0 on a GPU.
    cpu_threads: int
    load_seconds: float

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: OnProgress,
        resume: Checkpoint | None = None,
    ) -> Prepared:
        """Does everything that needs no model. `fd` stays the caller's, and open until the result
        is closed. With `resume`, the job goes on from there.

        Raises BadAudio, TooLarge, BadRequest, OutOfMemory, and what the callback raises.
        """

    def run(
        self,
        prepared: Prepared,
        on_progress: OnProgress,
        on_segment: OnSegment,
        on_checkpoint: OnCheckpoint,
    ) -> Transcription:
        """Transcribes what `prepare` returned, which stays the caller's to close.

        Raises as `prepare` does; Poisoned if the process must end.
        """
