"""Seconds of audio transcribed per second: the engine alone, asrd, and one batch of many clips.

    python -m tests.benchmarks.gpu --model DIRECTORY [--device cuda] [--compute-type float16]

Shows whether a worker should run the jobs of several clients as one batch: faster-whisper's
BatchedInferencePipeline over as many clips is the upper bound of that. Several workers on one
card are what asrd has instead. Temperature 0, English, the given beam, no VAD; each figure
takes `--seconds`.
"""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

from asrd import Client
from tests.benchmarks import measure
from tests.benchmarks.measure import daemon, demo_speech

# The gain over one worker at which batching across clients is worth building.
WORTH_BUILDING = 1.5
_START_SECONDS = 240.0


@dataclass(frozen=True)
class Plan:
    model: str
    device: str
    compute_type: str
    lengths: Sequence[float] = (5.0, 30.0)
    clients: Sequence[int] = (1, 4, 16, 32)
    workers: Sequence[int] = (1, 2, 4)
    batches: Sequence[int] = (8, 16, 32)
    seconds: float = 4.0
    beam_size: int = 5


class _Rates(dict[str, float]):
    """Logs each figure at once, so that none is lost if the program is stopped."""

    def __setitem__(self, way: str, rate: float) -> None:
        super().__setitem__(way, rate)
        print(f"{way}: {rate:.1f}", file=sys.stderr, flush=True)


def measure_all(plan: Plan) -> dict[str, Any]:
    """Returns `rates`, seconds of audio per second by length and way, and `decision` by length."""
    rates: dict[str, dict[str, float]] = {f"{length:g} s": _Rates() for length in plan.lengths}
    _engine_alone(plan, rates)
    for workers in plan.workers:
        _asrd(plan, workers, rates)
    decisions = {length: decide(ways) for length, ways in rates.items()}
    return {"rates": rates, "decision": decisions}


def decide(ways: dict[str, float]) -> str:
    """Applies the rule for batching across clients."""
    one = max(rate for way, rate in ways.items() if way.startswith("asrd, 1 worker, "))
    most = max(rate for way, rate in ways.items() if way.startswith("asrd,"))
    batched = max(rate for way, rate in ways.items() if way.startswith("batched"))
    verdict = "build it" if batched / one >= WORTH_BUILDING else "not worth building"
    return (
        f"one batch gives at most {batched / one:.2f} x one worker ({verdict}: the rule is "
        f"{WORTH_BUILDING:g} x), and {batched / most:.2f} x the best that asrd does now"
    )


def _engine_alone(plan: Plan, rates: dict[str, dict[str, float]]) -> None:
    model = WhisperModel(
        plan.model, device=plan.device, compute_type=plan.compute_type, cpu_threads=1
    )
    batched = BatchedInferencePipeline(model)
    options = {"language": "en", "temperature": 0.0, "beam_size": plan.beam_size}
    for length in plan.lengths:
        clip = demo_speech(length)

        def bare(clip: Any = clip) -> None:
            list(model.transcribe(clip, **options)[0])

        ways = rates[f"{length:g} s"]
        ways["engine in process"] = rate([bare], length, plan.seconds)
        for size in plan.batches:
            many = np.tile(clip, size)
            clips = [{"start": i * length, "end": (i + 1) * length} for i in range(size)]

            def batch(many: Any = many, clips: Any = clips, size: int = size) -> None:
                found, _ = batched.transcribe(
                    many, batch_size=size, clip_timestamps=clips, vad_filter=False,
                    without_timestamps=False, **options,
                )  # fmt: skip
                list(found)

            ways[f"batched by {size}"] = rate([batch], size * length, plan.seconds)


def _asrd(plan: Plan, workers: int, rates: dict[str, dict[str, float]]) -> None:
    config = f"[front]\nqueue_max = 64\n[worker]\ncpu_threads = 1\nbeam_size = {plan.beam_size}\n"
    arguments = ["--device", plan.device, "--compute-type", plan.compute_type]
    arguments += ["--workers", str(workers)]
    name = f"asrd, {workers} worker{'s' * (workers > 1)}"
    with daemon(*arguments, model=Path(plan.model), config=config, patience=_START_SECONDS) as path:
        for length in plan.lengths:
            clip = demo_speech(length)
            for count in plan.clients if workers == 1 else plan.clients[-2:]:
                callers = [_caller(path, clip) for _ in range(count)]
                ways = rates[f"{length:g} s"]
                ways[f"{name}, {count} clients"] = rate(callers, length, plan.seconds)


def _caller(path: str, clip: Any) -> Callable[[], None]:
    client = Client(path)

    def ask() -> None:
        client.transcribe(clip, language="en", temperature=0.0, timeout=60)

    return ask


def rate(callers: Sequence[Callable[[], None]], length: float, seconds: float) -> float:
    """Runs each caller in a loop, all at once. Returns seconds of audio per second; a call
    transcribes `length` seconds."""
    callers[0]()
    done: list[float] = []
    started = time.perf_counter()

    def loop(call: Callable[[], None]) -> None:
        while time.perf_counter() - started < seconds:
            call()
            done.append(time.perf_counter())

    with ThreadPoolExecutor(len(callers)) as pool:
        list(pool.map(loop, callers))
    return len(done) * length / (max(done) - started)


def table(rates: dict[str, dict[str, float]]) -> str:
    lengths = list(rates)
    rows = [
        [way, *(f"{rates[length][way]:.1f}" for length in lengths)] for way in rates[lengths[0]]
    ]
    return measure.markdown_table(["", *(f"jobs of {length}" for length in lengths)], rows)


def main() -> None:
    parser = measure.parser(__doc__, Plan.seconds)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compute-type", default="float16")
    parser.add_argument("--beam-size", type=int, default=Plan.beam_size)
    parser.add_argument("--lengths", type=float, nargs="+", default=Plan.lengths)
    for name in ("clients", "workers", "batches"):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=getattr(Plan, name))
    found = measure_all(Plan(**vars(parser.parse_args())))
    print(measure.machine(), "seconds of audio per second", table(found["rates"]), sep="\n\n")
    for length, decision in found["decision"].items():
        print(f"{length}: {decision}")


if __name__ == "__main__":
    main()
