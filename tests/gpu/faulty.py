"""A worker whose engine breaks its CUDA context when a job's `initial_prompt` asks for it.

Python runs `sitecustomize` before any program (`install` puts one on the path), and that of a
worker replaces `load_engine`. Nothing else about the worker or the engine is another.
"""

import sys
from pathlib import Path
from typing import Any

PROMPT = "please fault"
_SITECUSTOMIZE = """
import sys

if "asrd.worker.main" in sys.orig_argv:
    from tests.gpu import faulty

    faulty.replace_engine()
"""


def install(directory: Path) -> str:
    """What must stand at the front of PYTHONPATH."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return str(directory)


def replace_engine() -> None:
    from asrd.worker import engine

    load = engine.load_engine

    def load_faulty(settings: Any, found: Any = None) -> Any:
        loaded: Any = load(settings, found)
        run = loaded.run

        def fault_or_run(prepared: Any, *callbacks: Any) -> Any:
            if prepared.arguments["initial_prompt"] == PROMPT:
                with prepared.honest_errors():
                    _fault(loaded.device)
            return run(prepared, *callbacks)

        loaded.run = fault_or_run
        return loaded

    engine.load_engine = load_faulty


def _fault(device: str) -> None:
    print("a fault was asked for", file=sys.stderr, flush=True)
    if device == "cuda":
        from tests.gpu.driver import Driver

        # CTranslate2 finds the context broken at its next call.
        Driver().fault()
    else:
        raise RuntimeError("CUDA failed with error an illegal memory access was encountered")
