"""Languages: allowed ones, several in one recording, and detection alone."""

from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.whisper import WhisperEngine
from asrd.errors import BadRequest
from tests.support.engine_jobs import count_calls, transcribe
from tests.support.real.library import ALIKE, library
from tests.support.real.speech import Clip

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def english_then_german(clips: dict[str, Clip]) -> Samples:
    return clips["multilingual.mp3"].audio


# --- several languages --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 4])
def test_each_window_has_its_language(
    base: WhisperEngine, english_then_german: Samples, batch_size: int | None
) -> None:
    options: dict[str, Any] = {"multilingual": True, "without_timestamps": True}
    if batch_size is None:
        options["condition_on_previous_text"] = False
    theirs, _ = library(base, english_then_german, batched=batch_size is not None, **options)
    found = transcribe(base, english_then_german, ALIKE, batch_size=batch_size, **options)
    assert [each.text for each in found.segments] == [each.text for each in theirs]
    assert found.language == "en"
    assert [each.language for each in found.segments][:2] == ["en", "de"]
    assert "Permission is hereby granted" in found.segments[0].text
    assert "die Software zu verwenden" in found.segments[1].text


def test_without_multilingual_segments_name_no_language(
    base: WhisperEngine, clips: dict[str, Clip]
) -> None:
    (segment,) = transcribe(base, clips["jfk.flac"].audio, ALIKE).segments
    assert segment.language is None


def test_silence_between_languages(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    """Silent windows have no language; the one before stays."""
    parts = [clips["jfk.flac"].audio, clips["french.aiff"].audio]
    silence = np.zeros(30 * RATE, np.float32)
    english = np.concatenate((silence, parts[0], silence[: 30 * RATE - len(parts[0])], silence))
    found = transcribe(base, np.concatenate((english, parts[1])), ALIKE, multilingual=True)
    assert found.language == "en"
    assert {each.language for each in found.segments if each.start < 90} == {"en"}
    assert {each.language for each in found.segments if each.start >= 90} == {"fr"}


# --- detection ----------------------------------------------------------------------------------


def test_only_allowed_languages_are_detected(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    french = clips["french.aiff"].audio
    late = np.concatenate((np.zeros(40 * RATE, np.float32), french))
    for audio in french, late:
        found = transcribe(base, audio, ALIKE, languages=("de", "en"))
        assert found.language in ("de", "en")
        # Of the two, one has at least half.
        assert 0.5 <= found.language_probability <= 1
    windows = transcribe(base, late, ALIKE, languages=("de", "nl"), multilingual=True).segments
    assert {each.language for each in windows} <= {"de", "nl"}


def test_several_windows_vote_as_in_faster_whisper(
    base: WhisperEngine, english_then_german: Samples, clips: dict[str, Clip]
) -> None:
    # The first window is English; the two after it are German.
    german = english_then_german[30 * RATE :]
    audio = np.concatenate((english_then_german[: 30 * RATE], german, german))
    for threshold in (0.5, 1.0):
        options: dict[str, Any] = {
            "language_detection_segments": 3,
            "language_detection_threshold": threshold,
        }
        theirs, info = library(base, audio, **options)
        found = transcribe(base, audio, ALIKE, **options)
        assert found.language == info.language
        assert found.language_probability == pytest.approx(info.language_probability, abs=1e-3)
        # No frame is lost by looking ahead.
        assert found.text == "".join(each.text for each in theirs).strip()
        assert found.language == ("en" if threshold == 0.5 else "de")


def test_detection_alone_decodes_nothing(
    base: WhisperEngine, clips: dict[str, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_calls(monkeypatch, WhisperModel, "generate_with_fallback")
    french = clips["french.aiff"].audio
    audio = np.concatenate((np.zeros(65 * RATE, np.float32), french))
    found = transcribe(base, audio, ALIKE, task="detect")
    assert (found.language, found.text, found.segments) == ("fr", "", ())
    assert found.audio_seconds == len(audio) / RATE
    assert not decoded
    theirs = transcribe(base, audio, ALIKE)
    assert found.language_probability == pytest.approx(theirs.language_probability, abs=0.01)


def test_detection_alone_in_silence_and_by_an_english_model(
    base: WhisperEngine, tiny_en: WhisperEngine
) -> None:
    silence = np.zeros(70 * RATE, np.float32)
    found = transcribe(base, silence, ALIKE, task="detect")
    assert (found.language, found.language_probability, found.audio_seconds) == ("en", 0, 70)
    assert transcribe(tiny_en, silence, ALIKE, task="detect").language_probability == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"languages": ("en", "de")}, r"languages\[1\]: this model does not know 'de'"),
        ({"multilingual": True}, "multilingual: this is an English-only model"),
    ],
)
def test_english_model_refuses_other_languages(
    tiny_en: WhisperEngine, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        transcribe(tiny_en, np.zeros(RATE, np.float32), ALIKE, **changes)
