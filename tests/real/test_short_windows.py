"""Short windows have no more word errors than full ones, cut no sentence short, and cost less."""

from typing import Any

import ctranslate2
import pytest
from faster_whisper import WhisperModel

from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real.speech import Clip, word_errors

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_short_windows_are_as_good_as_full_ones_for_half_the_frames(
    name: str,
    clips: dict[str, Clip],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine: WhisperEngine = request.getfixturevalue(name)
    frames: list[int] = []
    encode = WhisperModel.encode

    def counting(model: Any, features: Any) -> Any:
        frames.append(features.shape[-1])
        return encode(model, features)

    monkeypatch.setattr(WhisperModel, "encode", counting)
    spoken = [clip for clip in clips.values() if clip.language == "en" and clip.text is not None]
    wrong, encoded, missing = {}, {}, {}
    for window in ("full", "short"):
        # Doubtful texts are sampled.
        ctranslate2.set_random_seed(0)
        frames.clear()
        found = [
            word_errors(
                clip.known_text, transcribe(engine, clip.audio, ENGLISH, window=window).text
            )
            for clip in spoken
        ]
        wrong[window] = sum(map(sum, found))
        missing[window] = [
            errors.missing
            for clip, errors in zip(spoken, found, strict=True)
            if " " in clip.known_text
        ]
        encoded[window] = sum(frames)
    assert wrong["short"] <= wrong["full"]
    assert all(a <= b for a, b in zip(missing["short"], missing["full"], strict=True))
    assert encoded["short"] <= 0.7 * encoded["full"]


@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_word_times_are_those_of_full_windows(
    name: str, clips: dict[str, Clip], request: pytest.FixtureRequest
) -> None:
    engine: WhisperEngine = request.getfixturevalue(name)
    audio = clips["goforward.wav"].audio
    found = [
        transcribe(engine, audio, ENGLISH, word_timestamps=True, window=window)
        for window in ("short", "full")
    ]
    short, full = ([w for each in one.segments for w in each.words or ()] for one in found)
    assert [word.word for word in short] == [word.word for word in full]
    assert [word.start for word in short] == pytest.approx([word.start for word in full], abs=0.2)
    assert [word.end for word in short] == pytest.approx([word.end for word in full], abs=0.2)


def test_language_and_text_of_french_are_found(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    found = transcribe(base, clips["french.aiff"].audio, ENGLISH, language=None, window="short")
    assert found.language == "fr"
    assert "dictée" in found.text
