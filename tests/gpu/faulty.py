"""A worker whose engine breaks its CUDA context when a job's `initial_prompt` asks for it.

    python -m tests.support.changed tests.gpu.faulty run ...

Only `load_engine` is replaced; worker and engine are otherwise the real ones.
"""

import sys
from typing import Any

from tests.support.changed import start_worker

PROMPT = "please fault"


def replace_engine() -> None:
    from asrd.engine import whisper as engine

    whisper: Any = engine
    load = whisper.load_engine

    def load_faulty(settings: Any, found: Any = None) -> Any:
        loaded: Any = load(settings, found)
        run = loaded.run

        def fault_or_run(prepared: Any, *callbacks: Any) -> Any:
            if prepared.hints.words == set(PROMPT.split()):
                with prepared.translate_engine_errors():
                    _fault(loaded.device)
            return run(prepared, *callbacks)

        loaded.run = fault_or_run
        return loaded

    whisper.load_engine = load_faulty


def _fault(device: str) -> None:
    print("a fault was requested", file=sys.stderr, flush=True)
    if device == "cuda":
        from tests.gpu.driver import Driver

        # CTranslate2 finds the context broken at its next call.
        Driver().fault()
    else:
        raise RuntimeError("CUDA failed with error an illegal memory access was encountered")


if __name__ == "__main__":
    replace_engine()
    sys.exit(start_worker())
