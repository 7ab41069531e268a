"""The demo model and the longest of its recordings, loaded once."""

import pytest

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
