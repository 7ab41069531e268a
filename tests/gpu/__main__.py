"""All checks on a GPU within a given time, and their report.

    python -m tests.gpu [--device cuda] [--budget SECONDS] [--only CHECK ...] [--report DIRECTORY]

The most important checks come first. Each has its own process and time limit; a check without
enough time left is reported as not run. `tests/gpu/run` starts this, also on a machine without
packages.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from asrd.worker.environment import WORKER_ENVIRONMENT
from tests.benchmarks.measure import parser
from tests.gpu import checks, cublas, real, report
from tests.gpu.checks import Seen, Stage
from tests.support.procfs import children

# Seconds for the report at the end.
_RESERVE = 6.0
# The characters of each daemon's log that a failed check reports.
_LOG = 20_000


@dataclass(frozen=True)
class Check:
    """With less than `least` seconds left it is not started; after `most` seconds it is stopped."""

    name: str
    run: Callable[[Stage], Seen]
    least: float
    most: float


def _shape(name: str, least: float, most: float) -> Check:
    return Check(f"shape-{name}", partial(checks.shape, name=name), least, most)


def _throughput(shape: str, seconds: float, least: float, most: float) -> Check:
    def run(stage: Stage) -> Seen:
        return checks.throughput(stage, stage.model(shape), seconds)

    return Check(f"throughput-{shape}", run, least, most)


def _throughput_of_base(stage: Stage) -> Seen:
    return checks.throughput(stage, real.weights("base"), 1, (1, 4, 16))


CHECKS = (
    Check("texts", checks.texts, 20, 250),
    Check("crash", checks.crash, 15, 60),
    Check("out-of-memory", checks.out_of_memory, 30, 90),
    Check("sticky-error", checks.sticky_error, 15, 60),
    Check("idle-exit", checks.idle_exit, 15, 60),
    Check("no-cublas", checks.no_cublas, 5, 60),
    Check("two-workers", checks.two_workers, 15, 60),
    Check("real-base", partial(real.words, name="base"), 30, 180),
    Check("real-base-speed", partial(real.speed, name="base"), 30, 150),
    Check("throughput-base", _throughput_of_base, 60, 240),
    _throughput("large-v3-turbo", 3, 60, 180),
    Check("hot-spare", checks.hot_spare, 15, 60),
    Check("doctor", checks.doctor, 10, 60),
    Check("no-new-code", checks.no_new_code, 10, 60),
    _shape("large-v3-turbo", 20, 90),
    _shape("large-v3", 20, 90),
    _shape("small", 20, 90),
    _shape("tiny", 20, 90),
    _throughput("small", 2, 50, 120),
    _throughput("large-v3", 2, 60, 150),
    Check("crash-without-cache", checks.crash_without_cache, 60, 300),
    Check("every-option", checks.every_option, 60, 300),
    _throughput("demo", 0.5, 20, 120),
)
SHAPES = {"cuda": ("small", "large-v3-turbo", "large-v3"), "cpu": ("tiny",)}


def main() -> int:
    args = _arguments()
    if args.run:
        return _run_one(args.run, Stage(args.device, args.work, args.models), args.facts)
    deadline = time.monotonic() + args.budget
    chosen = [check for check in CHECKS if not args.only or check.name in args.only]
    # Short, because the paths of sockets have a limit.
    with tempfile.TemporaryDirectory(prefix="gpu-") as directory:
        work = Path(directory)
        found = cublas.find(work / "links") if args.device == "cuda" else None
        os.environ.update(WORKER_ENVIRONMENT)
        os.environ.setdefault("CUDA_CACHE_PATH", str(work / "cache"))
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        if found is not None:
            os.environ.update(found.changes)
        about = report.machine(args.device, found.text if found else "not searched")
        results: list[report.Result] = []
        makers = [_make(shape, work / "models", args.device) for shape in _wanted(chosen, args)]
        try:
            for check in chosen:
                results.append(_watch(check, args.device, work, deadline))
                # At once, because the machine may be taken away at any time.
                if args.report:
                    report.write(about, results, args.report)
        finally:
            for maker in makers:
                _end(maker)
    print(report.markdown(about, results))
    return int(any(result.verdict == "failed" for result in results))


def _arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    made.add_argument("--budget", type=float, default=540, help="seconds, for all checks")
    made.add_argument("--only", nargs="+", choices=[check.name for check in CHECKS])
    made.add_argument("--report", type=Path, help="a directory for gpu.md and gpu.json")
    # The options with which this program starts itself for one check.
    made.add_argument("--run", help=argparse.SUPPRESS)
    for name in ("--work", "--models", "--facts"):
        made.add_argument(name, type=Path, help=argparse.SUPPRESS)
    return made.parse_args()


def _wanted(chosen: list[Check], args: argparse.Namespace) -> list[str]:
    names = {check.name for check in chosen}
    users = {shape: {f"throughput-{shape}", f"shape-{shape}"} for shape in SHAPES[args.device]}
    users.get("small", set()).add("out-of-memory")
    return [shape for shape, checks_of in users.items() if names & checks_of]


def _make(shape: str, models: Path, device: str) -> "subprocess.Popen[bytes]":
    """Makes a model while the first checks run, which do not need it."""
    (models / shape).mkdir(parents=True)
    kind = "float16" if device == "cuda" else "int8"
    program = f"{sys.executable} -m tests.benchmarks.random_model --compute-type {kind}"
    command = f"{program} {shape} {models / shape} && : >{models / shape}.done"
    return subprocess.Popen(["sh", "-c", command], stdout=sys.stderr, start_new_session=True)


def _watch(check: Check, device: str, work: Path, deadline: float) -> report.Result:
    """Runs one check in a process of its own, and stops all processes that it started."""
    left = deadline - time.monotonic() - _RESERVE
    if left < check.least:
        return report.Result(check.name, "not run", 0, {"reason": f"out of time ({left:.0f} s)"})
    limit = min(check.most, left)
    facts, own = work / f"{check.name}.json", work / check.name
    own.mkdir()
    argv = [sys.executable, "-m", "tests.gpu", "--device", device, "--run", check.name]
    argv += ["--work", str(own), "--models", str(work / "models"), "--facts", str(facts)]
    print(f"{check.name} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    process = subprocess.Popen(argv, stdout=sys.stderr, start_new_session=True)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        seen: Seen = {"reason": f"not done after {limit:.0f} s"}
    else:
        seen = {"reason": f"ended with {process.returncode}"}
    finally:
        _end(process)
    took = time.monotonic() - started
    verdict = "failed"
    if facts.exists():
        answer = json.loads(facts.read_text())
        verdict, seen = answer["verdict"], answer["seen"]
    logs = "\n".join(log.read_text(errors="replace")[-_LOG:] for log in own.rglob("log"))
    return report.Result(check.name, verdict, took, seen, logs if verdict == "failed" else "")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a process and its children: `asrd run` has a session of its own, and its workers end
    with it."""
    for leader in (process.pid, *children(process.pid)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    process.wait()


def _run_one(name: str, stage: Stage, facts: Path) -> int:
    check = next(check for check in CHECKS if check.name == name)
    answer: dict[str, Any]
    try:
        answer = {"verdict": "passed", "seen": check.run(stage)}
    except checks.NotHere as reason:
        answer = {"verdict": "not run", "seen": {"reason": str(reason)}}
    except Exception as error:
        traceback.print_exc()
        answer = {"verdict": "failed", "seen": {"reason": f"{type(error).__name__}: {error}"}}
    facts.write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
