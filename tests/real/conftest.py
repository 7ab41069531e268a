"""Real weights and real speech. These tests fail without them and never skip."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asrd.engine.whisper import WhisperEngine
from asrd.settings import WorkerSettings
from tests.support.real import speech, weights
from tests.support.real.daemon import RealDaemon, real_daemon
from tests.support.real.exactly import load_exact
from tests.support.real.speech import Clip


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
def daemon(
    model_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealDaemon]:
    """One daemon for all tests, with a worker for `tiny.en` and one for `base`."""
    models = {name: model_path(name) for name in ("tiny.en", "base")}
    with real_daemon(tmp_path_factory.mktemp("real"), models) as running:
        yield running


@pytest.fixture(scope="session")
def engines(tiny_en: WhisperEngine, base: WhisperEngine) -> dict[str, WhisperEngine]:
    return {"tiny.en": tiny_en, "base": base}


@pytest.fixture(scope="session")
def clips() -> dict[str, Clip]:
    try:
        return speech.clips()
    except weights.Missing as error:
        pytest.fail(f"real speech: {error}", pytrace=False)


def load(path: Path, **settings: Any) -> WhisperEngine:
    """Returns an engine with exact features, as those of the daemon are."""
    chosen = {"compute_type": "int8", **settings}
    return load_exact(WorkerSettings(model=str(path), device="cpu", cpu_threads=1, **chosen))
