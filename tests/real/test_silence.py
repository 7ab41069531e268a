"""Silence is skipped; faint speech is not."""

import time

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real.speech import Clip, word_error_rate

pytestmark = pytest.mark.real


def test_silence_costs_nothing(base: WhisperEngine) -> None:
    """faster-whisper needs 40 s, for six temperatures of an invented text."""
    steps = np.random.default_rng(0).integers(-1, 2, 25 * RATE)
    dither = steps.astype(np.float32) / np.float32(32768)
    started = time.process_time()
    found = transcribe(base, dither, ENGLISH, language=None)
    assert found.segments == ()
    assert time.process_time() - started < 1


def test_language_is_detected_after_silence(base: WhisperEngine, clips: dict[str, Clip]) -> None:
    audio = np.concatenate((np.zeros(40 * RATE, np.float32), clips["french.aiff"].audio))
    found = transcribe(base, audio, ENGLISH, language=None)
    assert found.language == "fr"
    assert "dictée" in found.text
    assert found.segments[-1].end <= found.audio_seconds


@pytest.mark.parametrize("decibels", [-40, -60, -70])
def test_faint_speech_is_understood(
    tiny_en: WhisperEngine, clips: dict[str, Clip], decibels: float
) -> None:
    clip = clips["jfk.flac"]
    found = transcribe(tiny_en, clip.audio * np.float32(10 ** (decibels / 20)), ENGLISH)
    assert word_error_rate([(clip.known_text, found.text)]) <= 0.15
