"""The task `speech`: finds where there is speech, by the VAD alone. No model is used."""

from asrd.engine.audio.reader import AudioReader
from asrd.engine.interface import OnProgress, OnSegment, Transcription
from asrd.engine.vad import SpeechFilter, Vad
from asrd.wire.fds import Closing
from asrd.wire.records import WARNINGS_MAX, Segment


class SpeechSearch(Closing):
    """A job whose recording is open. It has no checkpoints: the VAD hears an hour in seconds."""

    def __init__(self, recording: AudioReader, vad: Vad) -> None:
        self._recording = recording
        self._vad = vad

    def close(self) -> None:
        self._recording.close()

    def run(self, on_progress: OnProgress, on_segment: OnSegment) -> Transcription:
        """Returns a segment without text for each stretch of speech.

        Raises BadAudio, TooLarge, and what the callbacks raise.
        """
        recording = self._recording
        found = SpeechFilter(recording, self._vad)
        for _ in found:
            on_progress(recording.seconds, recording.total_seconds)
        segments = tuple(
            Segment(id=number, start=round(start, 3), end=round(end, 3), text="")
            for number, (start, end) in enumerate(found.map.chunks(), 1)
        )
        for segment in segments:
            on_segment(segment)
        warnings = tuple(recording.warnings[:WARNINGS_MAX])
        return Transcription("", None, 0.0, recording.seconds, segments, warnings)
