"""Engines whose features do not depend on the order in which BLAS adds (tests.support.exact).

The last bit of a feature sometimes decides a word, also of a real model. With exact features any
difference between asrd's text and the library's is a fault. As a program, a worker with such an
engine.
"""

import sys

from asrd.engine import whisper
from asrd.engine.weights import Weights
from asrd.engine.whisper import WhisperEngine, load_engine
from asrd.settings import WorkerSettings
from tests.support.changed import start_worker
from tests.support.exact import make_exact


def load_exact(settings: WorkerSettings, weights: Weights | None = None) -> WhisperEngine:
    """Does what `load_engine` does."""
    engine = load_engine(settings, weights)
    make_exact(engine._model.feature_extractor)
    return engine


if __name__ == "__main__":
    whisper.load_engine = load_exact
    sys.exit(start_worker())
