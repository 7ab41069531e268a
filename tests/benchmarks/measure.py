"""What the benchmarks share: the daemon under test, paired samples, and the table."""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asrd import Client
from tests.speech import long_recording

RATE = 16_000


@contextmanager
def daemon(*arguments: str, config: str = "") -> Iterator[str]:
    """`asrd run` with the demo model; its socket's path."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/asrd.sock"
        settings = Path(directory, "asrd.toml")
        settings.write_text(config)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "asrd.main",
                "run",
                "--model",
                "demo",
                *arguments,
                "--socket",
                path,
                "--config",
                str(settings),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(path)
            yield path
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(path: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with Client(path) as client:
                workers = client.status()["workers"]
        except Exception:
            workers = []
        if workers and all(worker["state"] == "ready" for worker in workers):
            return
        time.sleep(0.05)
    raise TimeoutError("the daemon did not become ready")


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
    ways: dict[str, Callable[[], object]], rounds: int, warm: int = 2
) -> dict[str, list[float]]:
    """Each way once per round, in turn, so that a slow moment of the machine hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(warm + rounds):
        for name, call in ways.items():
            taken = seconds_of(call)
            if round_ >= warm:
                times[name].append(taken)
    return times


def paired(times: list[float], base: list[float]) -> float:
    """Median of the differences within each round, in milliseconds."""
    return 1000 * statistics.median(a - b for a, b in zip(times, base, strict=True))


def median_ms(times: list[float]) -> float:
    return 1000 * statistics.median(times)


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in [header, ["-" * width for width in widths], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


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
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}"
