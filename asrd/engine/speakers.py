"""The engine of a worker that tells speakers apart: the task `speakers`, and nothing else.

    descriptor -> AudioReader -> Diarizer (sherpa-onnx) -> segments without text, with `speaker`

The whole recording is in memory (230 MB per hour, twice while its blocks are joined): who speaks is
decided by comparing all of it.
"""

from pathlib import Path

import numpy as np

from asrd.demo import SPEECH
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import AudioReader, Samples
from asrd.engine.combinations import settle_speakers
from asrd.engine.interface import OnCheckpoint, OnProgress, OnSegment, Transcription
from asrd.engine.sherpa import Diarizer
from asrd.engine.speaker_files import EMBEDDING, SEGMENTATION
from asrd.errors import LoadError
from asrd.settings import WorkerSettings
from asrd.wire.fds import Closing
from asrd.wire.options import Options
from asrd.wire.records import WARNINGS_MAX, AudioFormat, Checkpoint, Segment

# The memory for comparing all voices grows with the square of the length: 1.2 GB for so long.
_LONGEST_SECONDS = 8 * 3600.0


class SpeakerSearch(Closing):
    """A job whose recording is open. It has no checkpoints."""

    def __init__(self, recording: AudioReader, speakers: int | None) -> None:
        self.recording = recording
        self.speakers = speakers

    def close(self) -> None:
        self.recording.close()


class SpeakerEngine:
    """See asrd.engine.interface.Engine."""

    languages: tuple[str, ...] = ()
    translate = word_timestamps = False
    # It searches no speech, and transcribes none.
    speech = False
    speakers = True
    device = "cpu"
    compute_type = "float32"

    def __init__(self, settings: WorkerSettings, path: Path) -> None:
        """Raises LoadError, ImportError."""
        self.model = settings.model
        self.cpu_threads = settings.cpu_threads
        self.load_seconds = 0.0
        threshold, threads = settings.speaker_threshold, settings.cpu_threads
        self.diarizer = Diarizer(path / SEGMENTATION, path / EMBEDDING, threshold, threads)

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: OnProgress,
        resume: Checkpoint | None = None,
    ) -> SpeakerSearch:
        settled = settle_speakers(options)
        recording = open_recording(
            fd,
            audio,
            min(max_audio_seconds, _LONGEST_SECONDS),
            track=options.audio_track,
            require_complete=bool(options.require_complete),
        )
        return SpeakerSearch(recording, settled.num_speakers)

    def run(
        self,
        prepared: SpeakerSearch,
        on_progress: OnProgress,
        on_segment: OnSegment = lambda segment: None,
        on_checkpoint: OnCheckpoint = lambda checkpoint: None,
    ) -> Transcription:
        recording = prepared.recording
        samples = _read(recording, on_progress)
        total = recording.seconds

        def report(share: float) -> None:
            on_progress(total * share, total)

        turns = self.diarizer.turns(samples, prepared.speakers, report)
        segments = tuple(
            Segment(
                id=number,
                start=round(turn.start, 3),
                end=round(min(turn.end, total), 3),
                text="",
                speaker=turn.speaker,
            )
            for number, turn in enumerate(turns, 1)
            if turn.start < total
        )
        for segment in segments:
            on_segment(segment)
        warnings = tuple(recording.warnings[:WARNINGS_MAX])
        return Transcription("", None, 0.0, total, segments, warnings)


def _read(recording: AudioReader, on_progress: OnProgress) -> Samples:
    blocks = []
    for block in recording:
        blocks.append(block)
        on_progress(0.0, recording.total_seconds)
    # A file may have claimed another length, or none.
    on_progress(0.0, recording.seconds)
    return np.concatenate(blocks)


def load_engine(settings: WorkerSettings, path: Path) -> SpeakerEngine:
    """Loads the models in `path`, and tries them on a known recording.

    Raises LoadError, ImportError.
    """
    engine = SpeakerEngine(settings, path)
    if settings.self_test:
        _test(engine.diarizer)
    return engine


def _test(diarizer: Diarizer) -> None:
    with (
        SPEECH.open("rb") as file,
        open_recording(file.fileno(), AudioFormat("file"), 60) as recording,
    ):
        samples = np.concatenate(list(recording))
    if not diarizer.turns(samples, None, lambda share: None):
        text = "the models fail their self-test: they hear nobody in a known recording"
        raise LoadError(text, self_test=True)
