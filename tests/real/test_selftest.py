"""Real weights pass their self-test by far, damaged ones fail it by far, and no recording without
speech makes a sound model look wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.selftest import LEAST_LOG_PROBABILITY, SelfTest
from asrd.engine.whisper import WhisperEngine
from asrd.errors import LoadError
from tests.real.conftest import load
from tests.support.damage import Rows, damage, shuffled, zeroed
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real.speech import Clip

pytestmark = pytest.mark.real

ModelPath = Callable[[str], Path]


def probabilities(test: SelfTest) -> tuple[float, float]:
    encoded = test._model.encode(test._features)
    return test._aligned(encoded), test._generated(encoded)


@pytest.mark.parametrize("compute_type", ["int8", "float32"])
@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_real_weights_pass(model_path: ModelPath, name: str, compute_type: str) -> None:
    engine = load(model_path(name), compute_type=compute_type)
    assert engine._self_test is not None
    aligned, generated = probabilities(engine._self_test)
    assert aligned == pytest.approx(generated, abs=0.05)
    assert aligned > -0.5


@pytest.mark.parametrize("language", ["de", "ja"])
def test_wrong_language_token_is_not_enough_to_fail(
    model_path: ModelPath, base: WhisperEngine, language: str
) -> None:
    """A stand-in for models that were trained further in another language."""
    assert all(found > -2 for found in probabilities(SelfTest(base._model, language)))


@pytest.mark.parametrize("name", ["tiny_en", "base"])
def test_other_sound_does_not_pass(
    name: str, clips: dict[str, Clip], request: pytest.FixtureRequest
) -> None:
    engine: WhisperEngine = request.getfixturevalue(name)
    test = SelfTest(engine._model, "en")
    for audio in (np.zeros(0, np.float32), _noise(0.1), clips["french.aiff"].audio):
        padded = np.append(audio, np.zeros(3 * RATE, np.float32))[: 5 * RATE // 2]
        test._features = engine._model.feature_extractor(padded)
        assert all(found < LEAST_LOG_PROBABILITY - 1 for found in probabilities(test))


def _noisy(rows: Rows) -> Rows:
    """Adds noise of the weights' own strength to float16 weights."""
    weights = np.ascontiguousarray(rows).view(np.float16).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, weights.std(), weights.shape)
    return (weights + noise).astype(np.float16)


@pytest.mark.parametrize(
    ("part", "how"),
    [
        ("encoder/layer_norm/gamma", zeroed),
        ("encoder/conv1/weight", zeroed),
        ("encoder/layer_.*weight$", shuffled),
        ("decoder/layer_.*/attention/linear_2/weight", zeroed),
        ("decoder/embeddings/weight", zeroed),
        (".*layer_.*/linear_.*/weight$", _noisy),
    ],
)
@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_damaged_weights_fail(
    model_path: ModelPath,
    tmp_path: Path,
    name: str,
    part: str,
    how: Callable[[Rows], Rows],
) -> None:
    model = Path(shutil.copytree(model_path(name), tmp_path / name))
    damage(model, part, how)
    # Without the check of alignment heads they are not used.
    for check_model in (True, False):
        with pytest.raises(LoadError, match="gives wrong text on cpu"):
            load(model, check_model=check_model)
    (model / "model.bin").unlink()


def _noise(loudness: float) -> Samples:
    return np.random.default_rng(0).normal(0, loudness, 20 * RATE).astype(np.float32)


def test_recordings_without_speech_leave_the_worker_alive(tiny_en: WhisperEngine) -> None:
    hum = np.sin(2 * np.pi * 50 * np.arange(20 * RATE) / RATE).astype(np.float32) * np.float32(0.3)
    clicks = np.where(np.arange(20 * RATE) % 4000 == 0, 1, 0).astype(np.float32)
    for audio in (np.zeros(20 * RATE, np.float32), _noise(0.001), _noise(0.3), hum, clicks):
        transcribe(tiny_en, audio)


def test_speech_that_is_left_out_on_purpose_leaves_the_worker_alive(
    base: WhisperEngine, clips: dict[str, Clip]
) -> None:
    """Every window is taken for silence: suspicious, but the self-test passes."""
    strict: dict[str, Any] = {"no_speech_threshold": 0, "log_prob_threshold": 0, "temperature": 0}
    found = transcribe(base, clips["jfk.flac"].audio, ENGLISH, **strict)
    assert found.text == ""
