"""Seconds that a user waits for real speech: by model, compute type and threads, and with two
workers.

    python -m tests.benchmarks.user [--models NAME ...] [--seconds S] [--minutes M]

asrd's engine and faster-whisper share the weights in a process and take turns; all options are the
defaults, language given. Each setup has a process of its own, as a worker has: the threads of
several models in one process would take the cores from each other. "Commands" are the sentences of
up to 4 s; the long recording is joined from all sentences. Wrong words are counted in all
sentences, by the first round. A daemon adds its hops (latency.py).
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

from asrd import Client
from asrd.engine.whisper import WhisperEngine, load_engine
from asrd.settings import WorkerSettings
from tests.benchmarks import measure
from tests.support.engine_jobs import ENGLISH, transcribe
from tests.support.real import weights
from tests.support.real.speech import joined, sentences, word_error_rate

_COMMAND_SECONDS = 4.0
_JOBS = 8


class Setup(NamedTuple):
    model: str
    compute_type: str
    threads: int

    def load(self) -> WhisperEngine:
        path = str(measure.model_named(self.model).path)
        kind, threads = self.compute_type, self.threads
        return load_engine(
            WorkerSettings(model=path, device="cpu", compute_type=kind, cpu_threads=threads)
        )


# Seconds of each recording in each round, by its number and the way.
Times = defaultdict[tuple[int, str], list[float]]


class Result(NamedTuple):
    """One setup, its times, and its texts by the way and the recording's number."""

    setup: Setup
    times: Times
    texts: dict[str, dict[int, str]]


class _Bench:
    def __init__(self, setup: Setup) -> None:
        self.times: Times = defaultdict(list)
        self.texts: dict[str, dict[int, str]] = {"asrd": {}, "library": {}}
        self._engine = setup.load()

    def measure(self, number: int, audio: Any, first: bool) -> None:
        ways = {"asrd": self._asrd, "library": self._library}
        for way in sorted(ways, reverse=first):
            started = time.perf_counter()
            text = ways[way](audio)
            self.times[number, way].append(time.perf_counter() - started)
            self.texts[way].setdefault(number, text)

    def _asrd(self, audio: Any) -> str:
        return transcribe(self._engine, audio, ENGLISH).text

    def _library(self, audio: Any) -> str:
        # The engine's model is faster-whisper's; a job has its own.
        found, _ = self._engine._model.transcribe(audio, language="en")
        return "".join(segment.text for segment in found).strip()


def main() -> None:
    made = measure.parser(__doc__, 400)
    made.add_argument("--models", nargs="*", default=list(weights.MODELS), metavar="NAME")
    made.add_argument("--minutes", type=float, default=1, help="the long recording; default: 1")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    setups = itertools.product(arguments.models, ("float32", "int8"), (1, 2))
    seconds = arguments.seconds / (4 * len(arguments.models))
    results = []
    for each in setups:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            job = process.submit(_measure, Setup(*each), seconds, arguments.minutes)
            results.append(job.result())
    _report(arguments, results)
    for model in arguments.models:
        _two_workers(model)


def _measure(setup: Setup, seconds: float, minutes: float) -> Result:
    recordings = [clip.audio for clip in sentences()]
    recordings.append(joined(sentences(), 60 * minutes)[0])
    bench = _Bench(setup)
    bench.measure(0, recordings[0], first=True)
    bench.times.clear()
    for number, audio in enumerate(recordings):
        for round_number in measure.rounds(seconds / len(recordings)):
            bench.measure(number, audio, first=round_number % 2 == 0)
    return Result(setup, bench.times, bench.texts)


def _report(arguments: argparse.Namespace, results: list[Result]) -> None:
    clips = sentences()
    commands = [n for n, c in enumerate(clips) if len(c.audio) <= _COMMAND_SECONDS * measure.RATE]
    rows = []
    for result in results:
        wrong = [
            f"{100 * word_error_rate([(c.known_text, texts[n]) for n, c in enumerate(clips)]):.1f}"
            for texts in result.texts.values()
        ]
        median, ratio = _summary(result.times, commands)
        long, long_ratio = _summary(result.times, [len(clips)])
        row = [result.setup.model, result.setup.compute_type, str(result.setup.threads)]
        row += [f"{1000 * median:.0f}", f"{ratio:.2f}"]
        rows.append([*row, f"{long / arguments.minutes:.2f}", f"{long_ratio:.2f}", *wrong])
    header = ["model", "compute type", "threads", "command p50 ms", "÷ faster-whisper"]
    header += ["s per minute of a long recording", "÷ faster-whisper", "wrong words %", "its own"]
    measure.table("asrd, default options; ratios are paired medians", header, rows)


def _summary(times: Times, numbers: list[int]) -> tuple[float, float]:
    """Returns the median of asrd's seconds, and of their ratios to faster-whisper's."""
    own = [seconds for number in numbers for seconds in times[number, "asrd"]]
    other = [seconds for number in numbers for seconds in times[number, "library"]]
    return statistics.median(own), statistics.median(a / b for a, b in zip(own, other, strict=True))


def _two_workers(model: str) -> None:
    """Compares workers that share the cores with workers that each use all of them."""
    audio = sentences()[0].audio
    cores = os.cpu_count() or 1
    counts = {"asrd run's share": 0, "all cores": cores}
    with ExitStack() as stack:
        ways: dict[str, Callable[[], object]] = {}
        for name, threads in counts.items():
            path = stack.enter_context(
                measure.daemon(
                    *("--workers", "2"),
                    model=measure.model_named(model).path,
                    config=f"[worker]\ncpu_threads = {threads}\n[front]\nqueue_max = {_JOBS}\n",
                )
            )
            ways[name] = _batch(path, audio)
        times = measure.interleave(ways, 15, least=2)
    rows = [[name, f"{_JOBS / statistics.median(taken):.2f}"] for name, taken in times.items()]
    title = f"{model}, two workers on {cores} cores, two clients"
    measure.table(title, ["threads of each worker", "commands/s"], rows)


def _batch(path: str, audio: Any) -> Callable[[], object]:
    def ask(_: int) -> None:
        with Client(path) as client:
            client.transcribe(audio, **measure.OPTIONS)

    def run() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ask, range(_JOBS)))

    return run


if __name__ == "__main__":
    main()
