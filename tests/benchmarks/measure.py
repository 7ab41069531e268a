"""What the benchmarks share: the daemon under test, paired samples, and the table."""

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from asrd import Client
from asrd.worker.environment import WORKER_ENVIRONMENT
from tests.support.speech import long_recording

RATE = 16_000
# One thread, so that the engine's own work varies least and is the same in every way.
CONFIG = "[worker]\ncpu_threads = 1\nbeam_size = 1\n"
# Of a worker that will be ready, but is not.
UNSETTLED = {"starting", "loading", "busy"}
_TICKS = os.sysconf("SC_CLK_TCK")


def parser(description: str | None, seconds: float) -> argparse.ArgumentParser:
    """With `--seconds`: how long the whole may measure, starts and stops not counted."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seconds", type=float, default=seconds, help="default: %(default)g")
    return made


def as_a_worker(module: str) -> None:
    """Start this program again in the environment that asrd gives its workers, so that the engine
    in process, and the peers, are as fast as they can be."""
    if not WORKER_ENVIRONMENT.items() <= os.environ.items():
        argv = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, **WORKER_ENVIRONMENT})


@contextmanager
def daemon(
    *arguments: str,
    model: str = "demo",
    config: str = CONFIG,
    stderr: int | IO[Any] = subprocess.DEVNULL,
    patience: float = 60,
) -> Iterator[str]:
    """`asrd run`, its workers ready; its socket's path."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/asrd.sock"
        settings = Path(directory, "asrd.toml")
        settings.write_text(config)
        argv = [sys.executable, "-m", "asrd.main", "run", "--model", model, *arguments]
        argv += ["--socket", path, "--config", str(settings)]
        process = subprocess.Popen(argv, stderr=stderr)
        try:
            wait_until_ready(path, patience)
            yield path
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(path: str, patience: float = 60) -> list[dict[str, Any]]:
    """The workers, as `status` shows them once some are ready and none is about to be."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(Exception), Client(path) as client:
            workers: list[dict[str, Any]] = client.status()["workers"]
            states = {worker["state"] for worker in workers}
            if "ready" in states and not states & UNSETTLED:
                return workers
        time.sleep(0.02)
    raise TimeoutError(f"the workers were not ready within {patience:g} s")


def run_takes(flag: str) -> bool:
    """Whether `asrd run` knows that flag."""
    argv = [sys.executable, "-m", "asrd.main", "run", "--help"]
    return flag in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def speech(seconds: float) -> NDArray[np.float32]:
    """Real speech of exactly that length, float32, 16 kHz, mono."""
    audio, _ = long_recording(seconds + 1, seed=1)
    return audio[: int(seconds * RATE)]


def pcm(audio: NDArray[np.float32]) -> bytes:
    return (audio * 32767).astype("<i2").tobytes()


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def interleave(
    ways: dict[str, Callable[[], object]], seconds: float, warm: int = 1, least: int = 3
) -> dict[str, list[float]]:
    """Each way once per round, so that a slow moment of the machine hits all of them, and each
    round begins with another one. As many rounds as fit into `seconds`, but `least`."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for _ in range(warm):
        for call in ways.values():
            call()
    end, rounds = time.monotonic() + seconds, 0
    while rounds < least or time.monotonic() < end:
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            times[name].append(seconds_of(ways[name]))
        rounds += 1
    return times


def differences(times: list[float], base: list[float]) -> list[float]:
    """Within each round, in milliseconds."""
    return [1000 * (a - b) for a, b in zip(times, base, strict=True)]


def median_ms(times: list[float]) -> float:
    return 1000 * statistics.median(times)


def percentile(times: list[float], share: float) -> float:
    """The nearest rank: a value that was seen."""
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)]


def percentiles(times: list[float]) -> str:
    """p50 / p99 in milliseconds."""
    if not times:
        return "-"
    return f"{1000 * percentile(times, 0.5):.1f} / {1000 * percentile(times, 0.99):.1f}"


def processor_seconds(pid: int) -> float:
    """Of the process so far, to the nearest 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int, key: str) -> float:
    """`Rss` or `Pss` (shared pages divided among those who share them) now, `VmHWM` at its peak."""
    name = "status" if key.startswith("Vm") else "smaps_rollup"
    for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/{name} has no {key}")


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """As Markdown that is readable as it is."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}\n")
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)


def machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, Python {python}, load before it {load:.1f}"


def versions() -> str:
    names = ["faster-whisper", "ctranslate2", "onnxruntime", "numpy", "anyio", "wyoming"]
    names += ["wyoming-faster-whisper"]
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} NOT INSTALLED")
    return ", ".join(found)
