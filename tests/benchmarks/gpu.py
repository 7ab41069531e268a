"""Seconds of audio transcribed per second: the engine alone, asrd, and one batch of many clips.

    python -m tests.benchmarks.gpu --model DIRECTORY [--device cuda] [--compute-type float16]

For the question whether a worker should run several clients' jobs as one batch: faster-whisper's
BatchedInferencePipeline over as many clips is the most that could give. Several workers on one
card are what asrd has instead. Temperature 0, English, the beam as given, no VAD; each figure is of
`--seconds`.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

from asrd import Client
from tests.benchmarks.measure import daemon, machine, speech, table

# Batching across clients is built if it could give so much more than one worker.
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
    """Shows each figure at once: whatever stops the program, they are in its log."""

    def __setitem__(self, way: str, rate: float) -> None:
        super().__setitem__(way, rate)
        print(f"{way}: {rate:.1f}", file=sys.stderr, flush=True)


def measure(plan: Plan) -> dict[str, Any]:
    """`rates`: by length, then by way, in seconds of audio per second; `decision`: by length."""
    rates: dict[str, dict[str, float]] = {f"{length:g} s": _Rates() for length in plan.lengths}
    _engine_alone(plan, rates)
    for workers in plan.workers:
        _asrd(plan, workers, rates)
    decisions = {length: decide(ways) for length, ways in rates.items()}
    return {"rates": rates, "decision": decisions}


def decide(ways: dict[str, float]) -> str:
    """Whether to build batching across clients, by the rule."""
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
        clip = speech(length)

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
    with daemon(*arguments, model=plan.model, config=config, patience=_START_SECONDS) as path:
        for length in plan.lengths:
            clip = speech(length)
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
    """Seconds of audio per second, all callers in loops at once; `length` is of one call."""
    callers[0]()
    done: list[float] = []
    problems: list[BaseException] = []
    started = time.perf_counter()

    def loop(call: Callable[[], None]) -> None:
        try:
            while time.perf_counter() - started < seconds:
                call()
                done.append(time.perf_counter())
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=loop, args=(call,)) for call in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return len(done) * length / (max(done) - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compute-type", default="float16")
    parser.add_argument("--lengths", type=float, nargs="+", default=Plan.lengths)
    parser.add_argument("--clients", type=int, nargs="+", default=Plan.clients)
    parser.add_argument("--workers", type=int, nargs="+", default=Plan.workers)
    parser.add_argument("--batches", type=int, nargs="+", default=Plan.batches)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--beam-size", type=int, default=Plan.beam_size)
    parser.add_argument("--json", action="store_true")
    arguments = vars(parser.parse_args())
    as_json = arguments.pop("json")
    found = measure(Plan(**arguments))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(machine())
    lengths = list(found["rates"])
    ways = list(found["rates"][lengths[0]])
    rows = [[way, *(f"{found['rates'][length][way]:.1f}" for length in lengths)] for way in ways]
    table("seconds of audio per second", ["", *(f"jobs of {length}" for length in lengths)], rows)
    for length, decision in found["decision"].items():
        print(f"{length}: {decision}")


if __name__ == "__main__":
    main()
