"""Throughput, refusals and the latency of `status` with N clients that ask again and again.

    python -m tests.benchmarks.overload [--model M] [--seconds S] [--clients C ...]
        [--peer-clients C ...]

Each request has 5 s of audio. A refused client waits for `retry_after_ms` and asks again.
Throughput is compared with a bare loop in this process over the same audio, before and after each
row. The generator (loadgen.py) is a process on the same cores; the table shows its share of them. A
peer gets `describe` instead of `status`. An answer after the end of the load is not counted, which
favours a peer that lets its clients wait for long.
"""

import contextlib
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from asrd import Client
from tests.benchmarks import measure
from tests.benchmarks.loadgen import Tally
from tests.benchmarks.peers import WYOMING, missing, serving

_STATUS_EVERY = 0.05
# The shares of a row's time that the bare loop takes, before and after the load.
_BASE_SHARE = 0.15
_HEADER = [
    *("", "clients", "jobs/s", "÷ in process", "answer p50 / p99 ms", "refused"),
    *("first second's `busy`", "later `busy` p50 / p99 ms", "status p50 / p99 ms", "lost"),
    *("no connection", "front's CPU %", "front's MiB", "generator's CPU %"),
]


@dataclass
class Load:
    """The measurements of one row; `unanswered` counts failed `status` requests."""

    tally: Tally
    status: list[float] = field(default_factory=list)
    unanswered: int = 0
    server: str = "-"
    memory: str = "-"


def main() -> None:
    made = measure.parser(__doc__, 200, "tiny.en")
    made.add_argument("--clients", type=int, nargs="*", default=[1, 2, 8, 32, 100, 200])
    made.add_argument("--peer-clients", type=int, nargs="*", default=[8, 200])
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    count = len(arguments.clients) + len(arguments.peer_clients)
    with tempfile.TemporaryDirectory() as directory:
        bench = _Bench(arguments.model, Path(directory), arguments.seconds / max(1, count))
        rows = [bench.row("asrd", clients) for clients in arguments.clients]
        rows += [bench.row(WYOMING, clients) for clients in arguments.peer_clients]
    measure.table(f"{bench.load_seconds:.1f} s of load each", _HEADER, rows)


class _Bench:
    def __init__(self, model: measure.Model, directory: Path, seconds: float) -> None:
        self._model = model
        self.load_seconds = (1 - 2 * _BASE_SHARE) * seconds
        self._base_seconds = _BASE_SHARE * seconds
        self._audio = directory / "audio.pcm"
        self._speech = model.speech(5)
        self._audio.write_bytes(measure.pcm(self._speech))
        self._transcribe = model.library()
        self._in_process()

    def row(self, name: str, clients: int) -> list[str]:
        if name != "asrd" and (absent := missing()):
            return [name, str(clients), absent, *[""] * (len(_HEADER) - 3)]
        with contextlib.ExitStack() as stack:
            run = self._asrd(stack) if name == "asrd" else self._peer(stack)
            bare = self._in_process()
            load = run(clients)
            bare = (bare + self._in_process()) / 2
        tally = load.tally
        rate = len(tally.done) / self.load_seconds
        generator = 100 * tally.processor_seconds / self.load_seconds
        return [
            *(name, str(clients), f"{rate:.2f}", f"{rate / bare:.2f}"),
            *(measure.percentiles(tally.done), f"{len(tally.crowd)} + {len(tally.busy)}"),
            *(measure.percentiles(tally.crowd), measure.percentiles(tally.busy)),
            measure.percentiles(load.status)
            + f", {load.unanswered} failed" * (load.unanswered > 0),
            *(str(tally.lost), str(tally.unconnected)),
            *(load.server, load.memory, f"{generator:.1f}"),
        ]

    def _asrd(self, stack: contextlib.ExitStack) -> Callable[[int], Load]:
        path = stack.enter_context(measure.daemon(model=self._model.path))
        client = stack.enter_context(Client(path))
        front = int(client.status()["pid"])

        def run(clients: int) -> Load:
            before = measure.processor_seconds(front)
            load = self._load("asrd", path, clients, client.status)
            used = (measure.processor_seconds(front) - before) / self.load_seconds
            load.server = f"{100 * used:.1f}"
            load.memory = f"{measure.memory_mib(front, 'Rss'):.1f}"
            return load

        return run

    def _peer(self, stack: contextlib.ExitStack) -> Callable[[int], Load]:
        peer = stack.enter_context(serving(self._model.path))
        return lambda clients: self._load("wyoming", peer.path, clients, peer.describe)

    def _load(self, protocol: str, path: str, clients: int, status: Callable[[], object]) -> Load:
        argv = [sys.executable, "-m", "tests.benchmarks.loadgen", protocol, path, str(clients)]
        argv += [str(self.load_seconds), str(self._audio)]
        load = Load(Tally())
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as generator:
            assert generator.stdout is not None
            while not select.select([generator.stdout], [], [], 0)[0]:
                try:
                    load.status.append(measure.seconds_of(status))
                except (OSError, RuntimeError):
                    load.unanswered += 1
                time.sleep(_STATUS_EVERY)
            load.tally = Tally(**json.load(generator.stdout))
        return load

    def _in_process(self) -> float:
        """Returns the jobs per second of a bare loop in this process."""
        count, started = 0, time.perf_counter()
        for _ in measure.rounds(self._base_seconds):
            self._transcribe(self._speech)
            count += 1
        return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
