"""From a worker's death to the next success, idle and in the middle of a request.

    python -m tests.benchmarks.recovery [--kills N]

Beside it, in the same run: what a bare process needs for interpreter, imports, load and a first
decode, which no recovery with one worker can beat.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from asrd import Client
from asrd.demo import MODEL
from tests.benchmarks.measure import daemon, machine, pcm, seconds_of, speech, table

_CONFIG = "[front]\nqueue_max = 4\n[worker]\ncpu_threads = 1\nbeam_size = 1\n"
_BARE = """
import os, sys, numpy
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", cpu_threads=1)
audio = numpy.frombuffer(sys.stdin.buffer.read(), "<i2").astype("float32") / 32768
list(model.transcribe(audio, language="en", beam_size=1, temperature=0.0)[0])
os._exit(0)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    kills = parser.parse_args().kills
    print(machine())
    audio = pcm(speech(3))
    rows = [_row("bare process: interpreter, imports, load, 3 s decoded", _bare(audio, kills // 5))]
    for workers in (1, 2):
        with daemon("--workers", str(workers), config=_CONFIG) as path, Client(path) as client:
            ask = _asker(client, audio)
            rows.append(_row(f"{workers} worker(s), undisturbed", _undisturbed(ask, kills)))
            rows.append(_row(f"{workers} worker(s), killed idle", _idle(client, ask, kills)))
            rows.append(_row(f"{workers} worker(s), killed mid-request", _busy(client, kills)))
            loads = [worker["load_seconds"] for worker in client.status()["workers"]]
        rows.append(
            _row(f"  of which the worker's own imports, load and warm-up ({workers})", loads)
        )
    table(f"{kills} kills each", ["", "p50 ms", "p95 ms", "max ms"], rows)


def _row(name: str, times: list[float]) -> list[str]:
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    values = statistics.median(ordered), p95, ordered[-1]
    return [name, *(f"{1000 * value:.0f}" for value in values)]


def _asker(client: Client, audio: bytes) -> Callable[[], object]:
    return lambda: client.transcribe(
        audio, encoding="pcm_s16le", language="en", temperature=0.0, timeout=60
    )


def _bare(audio: bytes, rounds: int) -> list[float]:
    argv = [sys.executable, "-c", _BARE, str(MODEL)]
    return [
        seconds_of(lambda: subprocess.run(argv, input=audio, check=True)) for _ in range(rounds)
    ]


def _undisturbed(ask: Callable[[], object], rounds: int) -> list[float]:
    return [seconds_of(ask) for _ in range(rounds)]


def _wait_until_all_ready(client: Client) -> list[int]:
    """The workers' process ids."""
    while True:
        workers = client.status()["workers"]
        if all(worker["state"] == "ready" for worker in workers):
            return [int(worker["pid"]) for worker in workers]
        time.sleep(0.02)


def _idle(client: Client, ask: Callable[[], object], kills: int) -> list[float]:
    times = []
    for _ in range(kills):
        os.kill(_wait_until_all_ready(client)[0], signal.SIGKILL)
        times.append(seconds_of(ask))
    return times


def _busy(client: Client, kills: int) -> list[float]:
    """A request whose worker dies at its first window: from the kill to its transcript."""
    audio = speech(3)
    times = []
    for _ in range(kills):
        _wait_until_all_ready(client)
        killed: list[float] = []

        def kill(_: object, killed: list[float] = killed) -> None:
            if not killed:
                busy = [w for w in client.status()["workers"] if w["job_id"] is not None]
                os.kill(int(busy[0]["pid"]), signal.SIGKILL)
                killed.append(time.perf_counter())

        client.transcribe(audio, language="en", temperature=0.0, timeout=60, on_progress=kill)
        times.append(time.perf_counter() - killed[0])
    return times


if __name__ == "__main__":
    main()
