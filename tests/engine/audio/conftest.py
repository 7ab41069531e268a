"""The speech that most tests of this folder read."""

import numpy as np
import pytest

from asrd.engine.audio.reader import Samples
from tests.support.sounds import sample


@pytest.fixture(scope="package")
def speech() -> Samples:
    """Three seconds."""
    return sample("en-4.wav")


@pytest.fixture(scope="package")
def longer(speech: Samples) -> Samples:
    """Ten seconds."""
    return np.tile(speech, 3)
