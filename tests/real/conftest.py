"""Real weights and real speech. These tests fail without them and never skip."""

from collections.abc import Callable
from pathlib import Path

import pytest

from asrd.config import WorkerSettings
from asrd.engine.whisper import WhisperEngine, load_engine
from tests.support.real import speech, weights
from tests.support.real.speech import Clip

Load = Callable[[str], WhisperEngine]


@pytest.fixture(scope="session")
def model_path() -> Callable[[str], Path]:
    """A function that returns the directory of `tiny.en` or `base`."""

    def find(name: str) -> Path:
        try:
            return weights.directory(name)
        except weights.Missing as error:
            pytest.fail(f"real weights: {error}", pytrace=False)

    return find


@pytest.fixture(scope="session")
def tiny_en(model_path: Callable[[str], Path]) -> WhisperEngine:
    return load(model_path("tiny.en"))


@pytest.fixture(scope="session")
def base(model_path: Callable[[str], Path]) -> WhisperEngine:
    return load(model_path("base"))


@pytest.fixture(scope="session")
def clips() -> dict[str, Clip]:
    try:
        return speech.clips()
    except weights.Missing as error:
        pytest.fail(f"real speech: {error}", pytrace=False)


def load(path: Path) -> WhisperEngine:
    return load_engine(
        WorkerSettings(model=str(path), device="cpu", compute_type="int8", cpu_threads=1)
    )
