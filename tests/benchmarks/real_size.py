"""Recovery with a model of real size: random weights in the shape of Whisper large-v3.

    python -m tests.benchmarks.real_size [--shape S] [--compute-type T] [--directory D] [--kills N]

Each round measures a bare process until its model is loaded, and asrd from a kill until its worker
is ready again, which includes a warm-up that the bare process does not do. The file is in the page
cache. Needs twice the model in memory; `D` keeps the model for the next run.
"""

import contextlib
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

from tests.benchmarks import measure
from tests.benchmarks.bare import bare
from tests.benchmarks.random_model import COMPUTE_TYPES, SHAPES, make

_PATIENCE = 300.0


def main() -> None:
    made = measure.parser(__doc__, 120)
    made.add_argument("--shape", choices=list(SHAPES), default="large-v3")
    made.add_argument("--compute-type", choices=COMPUTE_TYPES, default="int8")
    made.add_argument("--directory", type=Path, help="default: a temporary one")
    made.add_argument("--kills", type=int, default=5, help="rounds at most; default: %(default)s")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    # Random weights say nothing of what a test plays to them.
    config = (
        f"[worker]\nbeam_size = 1\ncpu_threads = {arguments.threads}\n"
        "compute_type = 'default'\nself_test = false\n"
    )
    with contextlib.ExitStack() as stack:
        directory = arguments.directory
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = directory / "model.bin"
        if not file.exists():
            make(arguments.shape, directory, arguments.compute_type)
        path = stack.enter_context(
            measure.daemon(model=directory, config=config, patience=_PATIENCE)
        )
        base, recoveries, loads = [], [], []
        for _ in measure.rounds(arguments.seconds, 1, arguments.kills):
            base.append(bare(directory, threads=arguments.threads, compute_type="default").loaded)
            recovery, load = _recover(path)
            recoveries.append(recovery)
            loads.append(load)
        size = file.stat().st_size / 1e6
    rows = [
        _row("bare process until loaded", base, base),
        _row("asrd, 1 worker: from the kill until ready", recoveries, base),
        _row("  its own load_seconds", loads, base),
    ]
    title = f"{arguments.shape}, {arguments.compute_type}: model.bin of {size:.0f} MB"
    header = ["", "n", "p50 s", "max s", "÷ bare, paired p50"]
    measure.table(title, header, rows)


def _recover(path: str) -> tuple[float, float]:
    """Returns the seconds until the killed worker's successor is ready, and its load_seconds."""
    (worker,) = measure.wait_until_ready(path)
    killed = time.monotonic()
    os.kill(int(worker["pid"]), signal.SIGKILL)
    while True:
        (successor,) = measure.wait_until_ready(path, _PATIENCE)
        if successor["pid"] != worker["pid"]:
            return time.monotonic() - killed, float(successor["load_seconds"])
        time.sleep(0.005)


def _row(name: str, times: list[float], base: list[float]) -> list[str]:
    ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
    middle = statistics.median(times)
    return [name, str(len(times)), f"{middle:.2f}", f"{max(times):.2f}", f"{ratio:.2f}"]


if __name__ == "__main__":
    main()
