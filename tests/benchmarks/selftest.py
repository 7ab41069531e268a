"""The cost of the self-test: when a model is loaded, and after a suspicious answer.

    python -m tests.benchmarks.selftest [--models NAME ...] [--seconds S]

Processor time of one thread, in this process. "Without" does the shortest warm-up instead, as a
worker with `self_test = false`. A suspicious answer costs the last two columns at most.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from faster_whisper.vad import get_vad_model

from asrd.demo import MODEL
from asrd.engine.vad import speech_seconds
from asrd.engine.whisper import load_engine
from asrd.settings import WorkerSettings
from tests.benchmarks import measure
from tests.support.real import weights

_COMPUTE_TYPES = ("int8", "float32")


def main() -> None:
    parser = measure.parser(__doc__, 120)
    parser.add_argument("--models", nargs="*", default=["demo", *weights.MODELS], metavar="NAME")
    arguments = parser.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    share = arguments.seconds / len(arguments.models) / len(_COMPUTE_TYPES)
    rows = [
        [name, compute_type, *_row(_path(name), compute_type, share)]
        for name in arguments.models
        for compute_type in _COMPUTE_TYPES
    ]
    header = ["model", "", "n", "load with it", "without", "added, paired", "again"]
    header += ["VAD of 5 minutes of noise"]
    measure.table("Milliseconds, medians", header, rows)


def _path(name: str) -> Path:
    return MODEL if name == "demo" else weights.directory(name)


def _row(path: Path, compute_type: str, seconds: float) -> list[str]:
    settings = WorkerSettings(
        model=str(path), device="cpu", cpu_threads=1, compute_type=compute_type
    )
    test = load_engine(settings)._self_test
    assert test is not None
    noise = np.random.default_rng(0).normal(0, 0.1, 300 * measure.RATE).astype(np.float32)
    ways: dict[str, Callable[[], object]] = {
        "with": partial(load_engine, settings),
        "without": partial(load_engine, replace(settings, self_test=False)),
        "again": test.problem,
        "vad": partial(speech_seconds, np.split(noise, 30), get_vad_model().session, 3.0),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in measure.rounds(seconds, 5):
        for name, call in ways.items():
            times[name].append(_processor_seconds(call))
    added = statistics.median(measure.differences(times["with"], times["without"]))
    medians = {name: f"{measure.median_ms(taken):.0f}" for name, taken in times.items()}
    shown = [medians["with"], medians["without"], f"{added:.0f}", medians["again"], medians["vad"]]
    return [str(len(times["with"])), *shown]


def _processor_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


if __name__ == "__main__":
    main()
