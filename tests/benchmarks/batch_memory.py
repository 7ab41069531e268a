"""Memory and time of a job with `batch_size` 64, by the worker's `batch_size_max`.

    python -m tests.benchmarks.batch_memory [--model NAME] [--most N ...] [--seconds N]

Each case runs in a process of its own, whose peak of memory includes the model and the recording.
A call is one of the model's: a job can't be cancelled within it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from asrd.engine.batched import _Pipeline
from asrd.engine.whisper import load_engine
from asrd.settings import WorkerSettings
from tests.benchmarks import measure
from tests.support.engine_jobs import GREEDY, transcribe
from tests.support.real.speech import joined, sentences


def main() -> None:
    parser = measure.parser(__doc__, seconds=2000, model="base")
    parser.add_argument("--most", nargs="*", type=int, default=[1, 4, 8, 16, 64], metavar="N")
    parser.add_argument("--beams", type=int, default=5)
    arguments = parser.parse_args()
    measure.use_worker_environment()
    if len(arguments.most) == 1:
        print(json.dumps(_case(arguments)))
        return
    print(measure.machine())
    rows = [_row(arguments, most) for most in arguments.most]
    title = (
        f"{arguments.model.path.name}, {arguments.seconds:g} s of speech, {arguments.beams} beams"
    )
    heads = ["batch_size_max", "windows", "peak MB", "seconds", "longest call"]
    measure.table(title, heads, rows)


def _row(arguments: argparse.Namespace, most: int) -> list[str]:
    argv = [sys.executable, "-m", "tests.benchmarks.batch_memory", "--most", f"{most}"]
    argv += ["--model", str(arguments.model.path), "--seconds", f"{arguments.seconds}"]
    argv += ["--beams", f"{arguments.beams}"]
    found = json.loads(subprocess.check_output(argv))
    return [f"{most}", *(f"{found[key]:.4g}" for key in ("windows", "peak", "seconds", "longest"))]


def _case(arguments: argparse.Namespace) -> dict[str, float]:
    (most,) = arguments.most
    settings = WorkerSettings(
        model=str(arguments.model.path),
        device="cpu",
        compute_type="int8",
        batch_size_max=most,
    )
    engine = load_engine(settings)
    audio, _ = joined(sentences(), arguments.seconds)
    calls = _timed_calls()
    started = time.monotonic()
    options = {"beam_size": arguments.beams, "condition_on_previous_text": None}
    transcribe(engine, audio, GREEDY, batch_size=64, **options)
    return {
        "windows": sum(count for count, _ in calls),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": time.monotonic() - started,
        "longest": max(seconds for _, seconds in calls),
    }


def _timed_calls() -> list[tuple[int, float]]:
    """Returns the windows and the seconds of the calls, which are added as they are made."""
    calls: list[tuple[int, float]] = []
    forward = _Pipeline.forward

    def timed(self: _Pipeline, features: Any, *rest: Any) -> Any:
        started = time.monotonic()
        found = forward(self, features, *rest)
        calls.append((len(features), time.monotonic() - started))
        return found

    _Pipeline.forward = timed  # type: ignore[assignment]
    return calls


if __name__ == "__main__":
    main()
