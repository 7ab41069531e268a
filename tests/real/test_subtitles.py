"""Subtitles of real speech, with the model's own times of words."""

import pytest

from asrd.engine.whisper import WhisperEngine
from asrd.subtitles import LINE_WIDTH, LINES, LONGEST, SHORTEST, Readable
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real.speech import joined, sentences

pytestmark = pytest.mark.real


def test_subtitles_of_a_minute_can_be_read(tiny_en: WhisperEngine) -> None:
    long = [clip for clip in sentences() if len(clip.known_text) > LINE_WIDTH]
    audio, _ = joined(long, 60.0)
    segments = transcribe(tiny_en, audio, ENGLISH, word_timestamps=True).segments
    layout = Readable()
    cues = [cue for segment in segments for cue in layout.add(segment)] + layout.end()
    assert any(len(cue.lines) > 1 for cue in cues)
    for cue, after in zip(cues, [*cues[1:], None], strict=True):
        lines = ["".join(line).strip() for line in cue.lines]
        assert len(lines) <= LINES
        assert all(0 < len(line) <= LINE_WIDTH for line in lines)
        free = after is None or after.start - cue.start > SHORTEST
        assert cue.end - cue.start >= SHORTEST - 1e-6 or not free
        assert cue.end - cue.start <= LONGEST + 1e-6
