"""A worker whose features do not depend on the order in which BLAS adds (tests.support.exact).

The last bit of a feature sometimes decides a word, also of a real model. With exact features any
difference between the daemon's text and the library's is a fault.
"""

import sys
from typing import Any

from tests.support.changed import start_worker
from tests.support.exact import make_exact


def _change_engine() -> None:
    from asrd.engine import whisper as engine

    whisper: Any = engine
    load = whisper.load_engine

    def load_exact(*arguments: Any) -> Any:
        loaded = load(*arguments)
        make_exact(loaded._model.feature_extractor)
        return loaded

    whisper.load_engine = load_exact


if __name__ == "__main__":
    _change_engine()
    sys.exit(start_worker())
