"""The parts that the benchmarks share: the daemon under test, paired samples, tables."""

import argparse
import itertools
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
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrd import Client
from asrd.demo import MODEL
from asrd.worker.environment import WORKER_ENVIRONMENT
from tests.support.real import weights
from tests.support.speech import long_recording

RATE = 16_000
# One thread, so that the engine's own work varies least and is the same in every way.
CONFIG = "[worker]\ncpu_threads = 1\nbeam_size = 1\n"
# The options of every request that is compared with faster-whisper's own work.
OPTIONS: dict[str, Any] = {"language": "en", "temperature": 0.0}
# The same for asrd.
ASKED: dict[str, Any] = {**OPTIONS, "window": "full"}
# asrd's default on a CPU.
COMPUTE_TYPE = "int8"
# States of a worker that will become ready.
_UNSETTLED = {"starting", "loading", "busy"}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Model:
    """A model to measure with, and speech that it understands."""

    path: Path

    def speech(self, seconds: float) -> NDArray[np.float32]:
        """Returns speech of exactly that length: float32, 16 kHz, mono."""
        if self.path == MODEL:
            return demo_speech(seconds)
        # Imported here: it needs packages that a GPU's machine may lack.
        from tests.support.real.speech import joined, sentences

        return joined(sentences(), seconds + 20)[0][: int(seconds * RATE)]

    def library(self) -> Callable[[Any], None]:
        """Loads the model into this process, and returns the function that transcribes with it."""
        from faster_whisper import WhisperModel

        model = WhisperModel(str(self.path), device="cpu", cpu_threads=1, compute_type=COMPUTE_TYPE)

        def transcribe(audio: Any) -> None:
            list(model.transcribe(audio, beam_size=1, **OPTIONS)[0])

        return transcribe


def model_named(name: str) -> Model:
    """Returns `demo`, a model of the real weights of the tests, or a model's directory."""
    if name == "demo":
        return Model(MODEL)
    if name not in weights.MODELS:
        return Model(Path(name))
    try:
        return Model(weights.directory(name))
    except weights.Missing as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def demo_speech(seconds: float) -> NDArray[np.float32]:
    """Returns synthetic speech of exactly that length, which the demo model understands."""
    # The last seconds of a long recording are silent, and asrd skips silence.
    audio, _ = long_recording(seconds + 20, seed=1)
    return audio[: int(seconds * RATE)]


def parser(
    description: str | None, seconds: float | None = None, model: str | None = None
) -> argparse.ArgumentParser:
    """Returns a parser; with `seconds`, it has `--seconds`, the time for all measurements; with
    `model`, it has `--model`."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if seconds is not None:
        made.add_argument("--seconds", type=float, default=seconds, help="default: %(default)g")
    if model is not None:
        text = "demo, tiny.en, base (tests/support/real) or a directory; default: %(default)s"
        made.add_argument("--model", type=model_named, default=model, help=text)
    return made


def use_worker_environment() -> None:
    """Starts this program again in the environment that asrd gives its workers, so that the engine
    in this process, and the peers, are as fast as possible."""
    if not WORKER_ENVIRONMENT.items() <= os.environ.items():
        module: Any = sys.modules["__main__"].__spec__
        argv = [sys.executable, "-m", module.name, *sys.argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, **WORKER_ENVIRONMENT})


@contextmanager
def daemon(
    *arguments: str, model: Path = MODEL, config: str = CONFIG, patience: float = 60
) -> Iterator[str]:
    """Starts `asrd run`, waits for its workers, and yields the path of its socket."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/asrd.sock"
        settings = Path(directory, "asrd.toml")
        settings.write_text(config)
        argv = [sys.executable, "-m", "asrd.main", "run", "--model", str(model), *arguments]
        argv += ["--socket", path, "--config", str(settings)]
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(path, patience)
            yield path
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(path: str, patience: float = 60) -> list[dict[str, Any]]:
    """Returns the workers from `status` once one is ready and no other will become ready."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(Exception), Client(path) as client:
            workers: list[dict[str, Any]] = client.status()["workers"]
            states = {worker["state"] for worker in workers}
            if "ready" in states and not states & _UNSETTLED:
                return workers
        time.sleep(0.02)
    raise TimeoutError(f"the workers were not ready within {patience:g} s")


def pcm(audio: NDArray[np.float32]) -> bytes:
    return (audio * 32767).astype("<i2").tobytes()


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def rounds(seconds: float, least: int = 1, most: int | None = None) -> Iterator[int]:
    """Counts rounds from 0 until `seconds` have passed: at least `least`, at most `most`."""
    end = time.monotonic() + seconds
    for number in itertools.count():
        if number == most or (number >= least and time.monotonic() >= end):
            return
        yield number


def interleave(
    ways: dict[str, Callable[[], object]], seconds: float, warm: int = 1, least: int = 3
) -> dict[str, list[float]]:
    """Measures each way once in every round, so that a slow moment of the machine affects all of
    them. Each round starts with another way. The first `warm` rounds are not measured."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for _ in range(warm):
        for call in ways.values():
            call()
    for number in rounds(seconds, least):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(seconds_of(ways[name]))
    return times


def differences(times: list[float], base: list[float]) -> list[float]:
    """Returns the difference within each round, in milliseconds."""
    return [1000 * (a - b) for a, b in zip(times, base, strict=True)]


def median_ms(times: list[float]) -> float:
    return 1000 * statistics.median(times)


def percentile(times: list[float], share: float) -> float:
    """Returns the nearest rank: a value that was measured."""
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)]


def percentiles(times: list[float]) -> str:
    """Returns "p50 / p99" in milliseconds."""
    if not times:
        return "-"
    return f"{1000 * percentile(times, 0.5):.1f} / {1000 * percentile(times, 0.99):.1f}"


def processor_seconds(pid: int) -> float:
    """Returns the processor time that the process has used, to the nearest 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int, key: str) -> float:
    """Returns `Rss`, `Pss` (shared pages divided among their users), or `VmHWM`, the peak."""
    name = "status" if key.startswith("Vm") else "smaps_rollup"
    for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/{name} has no {key}")


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table whose source is aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in [header, ["-" * width for width in widths], *rows]
    )


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n\n{markdown_table(header, rows)}", flush=True)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.machine()
    load = os.getloadavg()[0]
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, Python {python}, load before it {load:.1f}"


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "NOT INSTALLED"
