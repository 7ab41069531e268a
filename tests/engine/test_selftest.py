"""A model that gives wrong text is refused when it loads and found out when it runs; a sound model
passes, no matter how often it has nothing to say."""

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrd.engine import whisper as engine_module
from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.selftest import SelfTest
from asrd.engine.whisper import WhisperEngine, load_engine
from asrd.errors import LoadError, Poisoned
from tests.support.damage import Rows, Silenced, damage, random, shuffled, zeroed
from tests.support.engine_jobs import SETTINGS, count_calls, edit, transcribe
from tests.support.sounds import noise, silence


def load(model: Path, **changes: Any) -> WhisperEngine:
    return load_engine(dataclasses.replace(SETTINGS, model=str(model), **changes))


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize(
    ("part", "how"),
    [
        ("encoder/layer_norm/gamma", zeroed),
        ("encoder/conv1/weight", zeroed),
        ("decoder/layer_.*/attention/.*weight$", shuffled),
        ("decoder/embeddings/weight$", shuffled),
        ("decoder/layer_norm", random),
    ],
)
def test_damaged_model_is_refused(
    model: Path, part: str, how: Callable[[Rows], Rows], heads: bool
) -> None:
    damage(model, part, how)
    if not heads:
        edit(model / "config.json", alignment_heads=None)
    with pytest.raises(LoadError) as refused:
        load(model)
    text = str(refused.value)
    assert text.startswith("the model gives wrong text on cpu (int8_float32): the model fails its")
    assert "self_test = false lets it through" in text
    assert load(model, self_test=False).model == str(model)


@pytest.mark.parametrize("compute_type", ["int8", "float32"])
def test_both_ways_find_the_same_probability(model: Path, compute_type: str) -> None:
    def probabilities() -> tuple[float, float]:
        loaded = load(model, compute_type=compute_type, self_test=False)._model
        test = SelfTest(loaded, "en")
        encoded = loaded.encode(test._features)
        return test._aligned(encoded), test._generated(encoded)

    for found in probabilities():
        assert -0.01 < found <= 0
    damage(model, "encoder/layer_norm/gamma", zeroed)
    aligned, generated = probabilities()
    assert aligned == pytest.approx(generated, abs=0.1)
    assert aligned < -4


def test_result_that_is_no_number_fails(engine: WhisperEngine) -> None:
    test = SelfTest(engine._model, "en")
    test._features = np.full_like(test._features, math.nan)
    for quick in (True, False):
        assert "fails its self-test" in str(test.problem(quick))


# --- suspicious answers -------------------------------------------------------------------------


@pytest.fixture
def silenced(engine: WhisperEngine) -> WhisperEngine:
    """An engine that finds no text in anything."""
    found = copy.copy(engine)
    found._model = copy.copy(engine._model)
    found._model.model = Silenced(engine._model.model)
    found._self_test = SelfTest(found._model, "en")
    return found


@pytest.fixture
def tests(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one with each self-test."""
    return count_calls(monkeypatch, SelfTest, "problem")


def test_silent_model_is_found_out_by_the_speech_that_it_misses(
    silenced: WhisperEngine, minute: Samples, tests: list[None]
) -> None:
    for vad_filter in (False, True):
        with pytest.raises(Poisoned, match=r"gives wrong text on cpu .*: the model fails its self"):
            transcribe(silenced, minute, vad_filter=vad_filter)
    assert len(tests) == 2


def test_model_that_passes_keeps_its_answer(
    silenced: WhisperEngine, minute: Samples, tests: list[None]
) -> None:
    silenced._model.model.sound = True
    assert transcribe(silenced, minute).text == ""
    assert len(tests) == 1


def test_answer_without_text_to_little_speech_is_no_suspicion(
    silenced: WhisperEngine, minute: Samples, tests: list[None]
) -> None:
    clicks = np.tile(np.append(np.ones(1, np.float32), silence(0.5)), 20)
    for audio in (silence(10), noise(10, 0.1), clicks, minute[: 2 * RATE]):
        assert transcribe(silenced, audio).text == ""
    assert not tests


@pytest.mark.parametrize("score", [-291.0, math.nan, math.inf * -1])
def test_absurd_probability_is_suspicious(
    silenced: WhisperEngine, minute: Samples, tests: list[None], score: float
) -> None:
    silenced._model.model.score = score
    with pytest.raises(Poisoned, match="gives wrong text"):
        transcribe(silenced, minute[: 2 * RATE], log_prob_threshold=None)
    assert len(tests) == 1


def test_without_a_vad_every_sound_may_be_speech(
    silenced: WhisperEngine, tests: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("no onnxruntime")

    monkeypatch.setattr(engine_module, "get_vad_model", fail)
    with pytest.raises(Poisoned):
        transcribe(silenced, noise(2, 0.1))
    assert transcribe(silenced, silence(2)).text == ""
    assert len(tests) == 1


def test_setting_turns_the_test_off(silenced: WhisperEngine, minute: Samples) -> None:
    silenced._self_test = None
    assert transcribe(silenced, minute).text == ""
