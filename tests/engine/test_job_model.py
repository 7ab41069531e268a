"""Silence never reaches the model, no sound is taken for silence, and hints never cost text."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.transcribe import TranscriptionOptions

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.hints import Hints, read_hints
from asrd.engine.job_model import JobModel
from asrd.engine.logmel import WINDOW, LogMel
from asrd.engine.whisper import WhisperEngine
from tests.support.engine_jobs import Listener, count_calls, transcribe
from tests.support.sounds import noise, sample, silence

FILTERS = FeatureExtractor().mel_filters
STEP = np.float32(1 / 32768)  # of 16-bit samples


def is_silent(*blocks: Samples) -> bool:
    mel = LogMel(blocks, FILTERS, lambda frame: None)
    mel[:, :WINDOW]
    return mel.silent


def attenuated(samples: Samples, decibels: float) -> Samples:
    return samples * np.float32(10 ** (decibels / 20))


def dither(seconds: float) -> Samples:
    return np.round(noise(seconds, 0.5)) * STEP


# --- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, STEP, 300 * STEP, -0.1])
def test_silence_dither_and_offset_are_silent(offset: float) -> None:
    constant = silence(25) + np.float32(offset)
    assert is_silent(constant)
    assert is_silent(constant + dither(25))
    speech = attenuated(sample("en-0.wav"), -40)
    assert not is_silent(constant[: len(speech)] + speech)


@pytest.mark.parametrize("decibels", [0, -60])
def test_faint_speech_is_not_silent(decibels: float) -> None:
    speech = attenuated(sample("en-0.wav"), decibels)
    assert not is_silent(speech)
    # As 16-bit samples too, and as the end of 30 s of silence.
    steps = np.round(speech / STEP) * STEP
    assert not is_silent(np.concatenate((silence(30), steps))[-30 * RATE :])


def test_sound_below_the_floor_of_a_loud_recording_is_silent(minute: Samples) -> None:
    """Whisper's features of such a window are one number."""
    loud = minute[: 30 * RATE]
    mel = LogMel([loud, attenuated(loud, -85)], FILTERS, lambda frame: None)
    mel[:, :WINDOW]
    assert not mel.silent
    window = mel[:, WINDOW + 10 : 2 * WINDOW]
    assert mel.silent
    assert window.min() == window.max()


@pytest.mark.parametrize("language", ["en", None])
def test_silent_recording_never_reaches_the_model(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch, language: str | None
) -> None:
    encoded = count_calls(monkeypatch, WhisperModel, "encode")
    listener = Listener()
    found = transcribe(engine, dither(95), listener=listener, language=language)
    assert not encoded
    assert (found.text, found.segments, found.audio_seconds) == ("", (), 95)
    assert found.language_probability == (1 if language else 0)
    # Progress goes on.
    assert {30.0, 60.0, 90.0} <= {done for done, _ in listener.progress}


def test_silence_is_skipped_at_any_threshold(engine: WhisperEngine) -> None:
    found = transcribe(
        engine, dither(35), language="en", word_timestamps=True, no_speech_threshold=1.0
    )
    assert (found.text, found.audio_seconds) == ("", 35)


def test_only_windows_with_sound_reach_the_model(
    engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = sample("en-0.wav")
    encoded = count_calls(monkeypatch, WhisperModel, "encode")
    found = transcribe(engine, np.concatenate((silence(60), speech, silence(90))))
    assert found.text == transcribe(engine, speech).text
    assert found.segments[0].start >= 60
    assert len(encoded) <= 3


def test_language_is_that_of_the_first_window_with_sound(engine: WhisperEngine) -> None:
    speech = sample("es-0.wav")
    alone = transcribe(engine, speech, language=None)
    after: Any = transcribe(engine, np.concatenate((silence(60), speech)), language=None)
    assert (after.language, after.text) == (alone.language, alone.text)
    assert after.language_probability == pytest.approx(alone.language_probability, abs=0.05)


# --- hints --------------------------------------------------------------------------------------


class Letters:
    """A tokenizer with a token for each character."""

    sot_prev, sot_sequence, timestamp_begin = -1, (-2, -3), sys.maxunicode + 1

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


class Decoder:
    """A model that answers each prompt with the next of `texts`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
        self.calls: list[tuple[list[int], Any]] = []
        self._texts = iter(texts)
        monkeypatch.setattr(WhisperModel, "generate_with_fallback", self._generate)

    def _generate(self, encoded: Any, prompt: list[int], tokenizer: Any, options: Any) -> Any:
        self.calls.append((prompt, options))
        tokens = list(map(ord, next(self._texts)))
        return SimpleNamespace(sequences_ids=[tokens]), -0.3, 0.0, 1.2

    def decode(self, hints: Hints, previous: list[int]) -> str:
        base = SimpleNamespace(
            model=None, feature_extractor=None, time_precision=0.02, max_length=448
        )
        features: Any = None
        model, tokenizer = JobModel(base, features, hints), Letters()
        options = TranscriptionOptions(**dict.fromkeys(TranscriptionOptions.__annotations__))
        options.temperatures = [0.0, 0.2]
        prompt = model.get_prompt(tokenizer, previous)
        found = model.generate_with_fallback("encoded", prompt, tokenizer, options)
        return tokenizer.decode(found[0].sequences_ids[0])


def test_window_is_decoded_without_hints_then_once_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = Decoder(monkeypatch, "comfy UI folder", "ComfyUI folder")
    hints = Hints((4, 5), (1, 2), frozenset({"comfyui"}))
    assert decoder.decode(hints, [1, 2, 9]) == "ComfyUI folder"
    (plain, with_all), (hinted, once) = decoder.calls
    assert plain == [-1, 9, -2, -3]
    assert hinted == [-1, 4, 5, 1, 2, 9, -2, -3]
    assert (with_all.temperatures, once.temperatures) == ([0.0, 0.2], [0.0])
    assert with_all.max_new_tokens is None
    # Room for a little more than the text without hints, not for a loop: CTranslate2 halves it.
    assert 15 < (len(hinted) + once.max_new_tokens) / 2 < 45


@pytest.mark.parametrize("bad", ["", "light " * 30])
def test_empty_text_or_loop_is_not_taken(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    decoder = Decoder(monkeypatch, "turn on the light", bad)
    assert decoder.decode(Hints((4,)), []) == "turn on the light"


def test_window_without_speech_is_not_decoded_with_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(monkeypatch, "")
    assert decoder.decode(Hints((4,)), []) == ""
    assert len(decoder.calls) == 1


def test_short_hint_leaves_room_for_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTranslate2 makes at most half of the tokens: a long text would be cut, and its hint lost."""
    decoder = Decoder(monkeypatch, "x" * 100, "x" * 100)
    decoder.decode(Hints((4,)), [])
    prompt, options = decoder.calls[1]
    assert (len(prompt) + options.max_new_tokens) / 2 > 100


def test_longest_hints_leave_room_for_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(monkeypatch, "x" * 200, "x" * 200)
    hints, _ = read_hints("a " * 4000, "b " * 4000, lambda text: [7] * len(text.split()))
    decoder.decode(hints, [*hints.initial_prompt, *[9] * 500])
    prompt, options = decoder.calls[1]
    assert len(prompt) + options.max_new_tokens <= 448
    assert options.max_new_tokens >= 220
