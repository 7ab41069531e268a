"""Times of the words in very short recordings."""

import pytest

from asrd.engine.audio.reader import RATE
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real.speech import Clip

pytestmark = pytest.mark.real


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.9])
def test_no_time_is_past_the_end(
    tiny_en: WhisperEngine, clips: dict[str, Clip], seconds: float
) -> None:
    """Whisper sees 30 s, and gives speech of 0.1 s an end after a whole second."""
    audio = clips["spk2_snt2.wav"].audio[: round(seconds * RATE)]
    for words in (False, True):
        found = transcribe(tiny_en, audio, ENGLISH, word_timestamps=words)
        spans = [(each.start, each.end) for each in found.segments]
        spans += [(w.start, w.end) for each in found.segments for w in each.words or ()]
        assert all(0 <= start <= end <= found.audio_seconds for start, end in spans)
