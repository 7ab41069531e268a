"""Real weights understand real speech through asrd's engine."""

import pytest

from asrd.engine.audio.reader import RATE
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real.speech import Clip, sentences, word_error_rate

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_sentences_have_a_low_word_error_rate(
    name: str, clips: dict[str, Clip], request: pytest.FixtureRequest
) -> None:
    engine: WhisperEngine = request.getfixturevalue(name)
    pairs = [
        (clip.known_text, transcribe(engine, clip.path.read_bytes(), ENGLISH).text)
        for clip in sentences()
    ]
    assert word_error_rate(pairs) <= 0.15


def test_languages_are_detected(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    found = {
        name: transcribe(base, clips[name].path.read_bytes(), ENGLISH, language=None).language
        for name in ("jfk.flac", "french.aiff")
    }
    assert found == {"jfk.flac": "en", "french.aiff": "fr"}


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
