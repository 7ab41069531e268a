"""A worker whose model stops to find text when a job's `initial_prompt` asks for it, and goes on
without any until the process ends. `silence first` means worker 0 alone.

    python -m tests.support.changed tests.support.silenced run ...
"""

import sys
from typing import Any

from tests.support.changed import start_worker
from tests.support.damage import Silenced

ALL, FIRST = "silence all", "silence first"


def replace_engine(name: str) -> None:
    from asrd.engine import whisper

    load = whisper.load_engine

    def load_silenced(settings: Any, weights: Any = None) -> Any:
        loaded: Any = load(settings, weights)
        model = loaded._model.model = Silenced(loaded._model.model, silent=False)
        run = loaded.run

        def fall_silent_and_run(prepared: Any, *callbacks: Any) -> Any:
            asked = " ".join(sorted(prepared.hints.words, reverse=True))
            model.silent |= asked == ALL or (asked == FIRST and name == "0")
            return run(prepared, *callbacks)

        loaded.run = fall_silent_and_run
        return loaded

    whisper.load_engine = load_silenced


if __name__ == "__main__":
    replace_engine(sys.argv[1])
    sys.exit(start_worker())
