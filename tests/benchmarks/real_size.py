"""Load and recovery with a model of real size: random weights in the shape of Whisper large-v3.

    python -m tests.benchmarks.real_size [--shape S] [--compute-type T] [--directory D] [--kills N]

In each round: reading model.bin and loading it in a bare process, both with the file out of the
page cache (cold) and in it (warm), and asrd's recovery from a kill until its worker is ready again,
which includes a warm-up that the bare process does not do. Needs twice the model in memory; `D`
keeps the model for the next run.
"""

import argparse
import contextlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.bare import bare
from tests.benchmarks.measure import (
    as_a_worker,
    daemon,
    machine,
    parser,
    seconds_of,
    table,
    wait_until_ready,
)
from tests.benchmarks.random_model import COMPUTE_TYPES, SHAPES, make

_BLOCK = 1 << 22
_PATIENCE = 300.0
_READ_COLD, _READ_WARM = "read model.bin, cold", "read model.bin, warm"
_LOAD_COLD, _LOAD_WARM = "bare process until loaded, cold", "bare process until loaded, warm"
_RECOVERY = "asrd, 1 worker: from the kill until ready, warm"
Times = dict[str, list[float]]


def main() -> None:
    arguments = _arguments()
    as_a_worker("tests.benchmarks.real_size")
    print(machine())
    with _directory(arguments) as directory:
        if not (directory / "model.bin").exists():
            made = seconds_of(lambda: make(arguments.shape, directory, arguments.compute_type))
            print(f"made in {made:.1f} s")
        with _daemon(directory, arguments.threads) as path:
            name = f"{arguments.shape}, {arguments.compute_type}"
            _report(name, directory / "model.bin", *_measure(directory, path, arguments))


def _arguments() -> argparse.Namespace:
    made = parser(__doc__, 120)
    made.add_argument("--shape", choices=list(SHAPES), default="large-v3")
    made.add_argument("--compute-type", choices=COMPUTE_TYPES, default="int8")
    made.add_argument("--directory", type=Path, help="default: a temporary one")
    made.add_argument("--kills", type=int, default=5, help="rounds at most; default: %(default)s")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    return made.parse_args()


@contextlib.contextmanager
def _directory(arguments: argparse.Namespace) -> Iterator[Path]:
    if arguments.directory is not None:
        yield arguments.directory
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def _daemon(directory: Path, threads: int) -> contextlib.AbstractContextManager[str]:
    config = f"[worker]\nbeam_size = 1\ncpu_threads = {threads}\n"
    return daemon(model=str(directory), config=config, patience=_PATIENCE)


def _measure(
    directory: Path, path: str, arguments: argparse.Namespace
) -> tuple[Times, float, list[float]]:
    """The times, the worst share of the file that was cached when it should be cold, and the
    worker's own load_seconds."""
    file, threads = directory / "model.bin", arguments.threads
    times: Times = {}
    cached, loads = 0.0, []
    end, rounds = time.monotonic() + arguments.seconds, 0
    while not rounds or (rounds < arguments.kills and time.monotonic() < end):
        cached = max(cached, _drop(file))
        times.setdefault(_READ_COLD, []).append(_read(file))
        times.setdefault(_READ_WARM, []).append(_read(file))
        cached = max(cached, _drop(file))
        times.setdefault(_LOAD_COLD, []).append(bare(directory, threads=threads).until_loaded)
        times.setdefault(_LOAD_WARM, []).append(bare(directory, threads=threads).until_loaded)
        recovery, load = _recover(path)
        times.setdefault(_RECOVERY, []).append(recovery)
        loads.append(load)
        rounds += 1
    return times, cached, loads


def _drop(file: Path) -> float:
    """Take the file out of the page cache; the share of it that is still there."""
    with file.open("rb") as opened:
        fd = opened.fileno()
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(fd).st_size
        offsets = range(0, size - 1, max(1, size // 256))
        return sum(_is_cached(fd, offset) for offset in offsets) / len(offsets)


def _is_cached(fd: int, offset: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def _read(file: Path) -> float:
    def read() -> None:
        buffer = bytearray(_BLOCK)
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass

    return seconds_of(read)


def _recover(path: str) -> tuple[float, float]:
    """Seconds until the killed worker's successor is ready, and its own load_seconds."""
    (worker,) = wait_until_ready(path)
    killed = time.monotonic()
    os.kill(int(worker["pid"]), signal.SIGKILL)
    while True:
        (successor,) = wait_until_ready(path, _PATIENCE)
        if successor["pid"] != worker["pid"]:
            return time.monotonic() - killed, float(successor["load_seconds"])
        time.sleep(0.005)


def _report(name: str, file: Path, times: Times, cached: float, loads: list[float]) -> None:
    size = file.stat().st_size / 1e6
    base = times[_LOAD_WARM]
    rows = []
    for way, taken in times.items():
        middle = statistics.median(taken)
        ratio = statistics.median(a / b for a, b in zip(taken, base, strict=True))
        rows.append([way, f"{middle:.2f}", f"{max(taken):.2f}", f"{ratio:.2f}"])
    own = f"{statistics.median(loads):.2f}", f"{max(loads):.2f}"
    rows.append(["  of which its own load_seconds", *own, ""])
    title = f"{name}: model.bin of {size:.0f} MB, {len(base)} rounds"
    table(title, ["", "p50 s", "max s", "÷ bare warm, paired p50"], rows)
    if cached > 0.01:
        print(f"\nUp to {cached:.0%} of the file was still cached when it was to be cold.")


if __name__ == "__main__":
    main()
