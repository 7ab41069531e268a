"""The demo model, as it is or to be changed, and the longest of its recordings."""

import shutil
from pathlib import Path

import pytest

from asrd.demo import MODEL
from asrd.engine.audio.reader import Samples
from asrd.engine.whisper import WhisperEngine, load_engine
from tests.support.engine_jobs import SETTINGS
from tests.support.exact import make_exact
from tests.support.sounds import sample


@pytest.fixture(scope="session")
def engine() -> WhisperEngine:
    loaded = load_engine(SETTINGS)
    make_exact(loaded._model.feature_extractor)
    return loaded


@pytest.fixture(scope="session")
def minute() -> Samples:
    return sample("en-minute.flac")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo model, to be changed."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))
