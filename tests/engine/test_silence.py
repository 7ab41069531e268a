"""Windows without sound cost nothing, and nothing that can be heard is taken for one."""

from typing import Any

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.logmel import WINDOW, LogMel
from asrd.engine.whisper import WhisperEngine, load_engine
from tests.engine.test_whisper import SETTINGS, Listener, count_calls, transcribe
from tests.support.sounds import noise, sample, silence

FILTERS = FeatureExtractor().mel_filters
STEP = np.float32(1 / 32768)  # of 16-bit samples


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    return load_engine(SETTINGS)


def is_silent(*blocks: Samples) -> bool:
    mel = LogMel(blocks, FILTERS, lambda frame: None)
    mel[:, :WINDOW]
    return mel.silent


def attenuated(samples: Samples, decibels: float) -> Samples:
    return samples * np.float32(10 ** (decibels / 20))


def dither(seconds: float) -> Samples:
    return np.round(noise(seconds, 0.5)) * STEP


def test_silence_and_dither_are_silent() -> None:
    assert is_silent(silence(25))
    assert is_silent(silence(0.01))
    assert np.abs(dither(25)).max() <= 3 * STEP
    assert is_silent(dither(25))


@pytest.mark.parametrize("offset", [STEP, 300 * STEP, -0.1])
def test_an_offset_is_silent(offset: float) -> None:
    constant = silence(25) + np.float32(offset)
    assert is_silent(constant)
    assert is_silent(constant + dither(25))
    speech = attenuated(sample("en-0.wav"), -40)
    assert not is_silent(constant[: len(speech)] + speech)


@pytest.mark.parametrize("decibels", [0, -20, -40, -60])
def test_faint_speech_is_not_silent(decibels: float) -> None:
    speech = sample("en-0.wav")
    assert not is_silent(attenuated(speech, decibels))
    # As 16-bit samples too, and as the end of 30 s of silence.
    steps = np.round(attenuated(speech, decibels) / STEP) * STEP
    assert not is_silent(np.concatenate((silence(30), steps))[-30 * RATE :])


def test_what_lies_under_the_floor_of_a_loud_recording_is_silent() -> None:
    """Whisper's features of such a window are one number."""
    loud = sample("en-minute.flac")[: 30 * RATE]
    mel = LogMel([loud, attenuated(loud, -85)], FILTERS, lambda frame: None)
    mel[:, :WINDOW]
    assert not mel.silent
    window = mel[:, WINDOW + 10 : 2 * WINDOW]
    assert mel.silent
    assert window.min() == window.max()


@pytest.mark.parametrize("quiet", [silence(95), dither(95)], ids=["zeros", "dither"])
@pytest.mark.parametrize("language", ["en", None])
def test_a_silent_recording_never_reaches_the_model(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch, quiet: Samples, language: str | None
) -> None:
    encoded = count_calls(monkeypatch, engine._model, "encode")
    listener = Listener()
    found = transcribe(engine, quiet, listener=listener, language=language)
    assert not encoded
    assert (found.text, found.segments, found.audio_seconds) == ("", (), 95)
    assert found.language_probability == (1 if language else 0)
    # Progress goes on.
    assert {30.0, 60.0, 90.0} <= {done for done, _ in listener.progress}


def test_only_the_windows_with_sound_reach_the_model(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = sample("en-0.wav")
    encoded = count_calls(monkeypatch, engine._model, "encode")
    found = transcribe(engine, np.concatenate((silence(60), speech, silence(90))))
    assert found.text == transcribe(engine, speech).text
    assert found.segments[0].start >= 60
    assert len(encoded) <= 3


@pytest.mark.parametrize("name", ["es-0.wav", "de-0.wav"])
def test_the_language_is_that_of_the_first_window_with_sound(
    engine: WhisperEngine, name: str
) -> None:
    speech = sample(name)
    alone = transcribe(engine, speech, language=None)
    after: Any = transcribe(engine, np.concatenate((silence(60), speech)), language=None)
    assert (after.language, after.text) == (alone.language, alone.text)
    assert after.language_probability == pytest.approx(alone.language_probability, abs=0.05)
