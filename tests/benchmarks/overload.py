"""C clients in a loop, 5 s of audio each: throughput, refusals, and what `status` costs meanwhile.

    python -m tests.benchmarks.overload [--seconds S] [--clients C ...] [--peer-clients C ...]

A client that is refused waits for as long as `retry_after_ms` says and asks again. Throughput is
compared with a bare in-process loop over the same audio, before and after each row; the generator
(loadgen.py) is a process of its own on the same cores, and what it takes of them is told, too. A
peer is asked to `describe` itself. An answer that comes after the end of
the load is not counted, which flatters a peer that lets its clients wait for long.
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

from faster_whisper import WhisperModel

from asrd import Client
from asrd.demo import MODEL
from tests.benchmarks.loadgen import Tally
from tests.benchmarks.measure import (
    as_a_worker,
    daemon,
    machine,
    memory_mib,
    parser,
    pcm,
    percentiles,
    processor_seconds,
    seconds_of,
    speech,
    table,
)
from tests.benchmarks.peers import WYOMING, missing, serving

_STATUS_EVERY = 0.05
# Of a row's time, before and after the load.
_BASE_SHARE = 0.15


@dataclass
class Under:
    """What was seen while the load went on."""

    tally: Tally
    seconds: float
    status: list[float] = field(default_factory=list)
    silent: int = 0
    server: str = "-"
    memory: str = "-"


def main() -> None:
    made = parser(__doc__, 200)
    made.add_argument("--clients", type=int, nargs="*", default=[1, 2, 8, 32, 100, 200])
    made.add_argument("--peer-clients", type=int, nargs="*", default=[8, 200])
    arguments = made.parse_args()
    as_a_worker("tests.benchmarks.overload")
    print(machine())
    count = len(arguments.clients) + len(arguments.peer_clients)
    with tempfile.TemporaryDirectory() as directory:
        bench = _Bench(Path(directory), arguments.seconds / max(1, count))
        rows = [bench.row("asrd", clients) for clients in arguments.clients]
        rows += [bench.row(WYOMING, clients) for clients in arguments.peer_clients]
    header = ["", "clients", "jobs/s", "÷ in process", "answer p50 / p99 ms", "refused"]
    header += [
        "first second's `busy`",
        "later `busy` p50 / p99 ms",
        "status p50 / p99 ms",
        "lost",
        "no connection",
    ]
    header += ["front's CPU %", "front's MiB", "generator's CPU %"]
    table(f"{bench.load_seconds:.1f} s of load each", header, rows)


class _Bench:
    def __init__(self, directory: Path, seconds: float) -> None:
        self.load_seconds = (1 - 2 * _BASE_SHARE) * seconds
        self._base_seconds = _BASE_SHARE * seconds
        self._audio = directory / "audio.pcm"
        self._speech = speech(5)
        self._audio.write_bytes(pcm(self._speech))
        self._model = WhisperModel(str(MODEL), device="cpu", cpu_threads=1)
        self._in_process(1)

    def row(self, name: str, clients: int) -> list[str]:
        if name != "asrd" and (told := missing()):
            return [name, str(clients), told, *[""] * 11]
        with contextlib.ExitStack() as stack:
            load = self._asrd if name == "asrd" else self._peer
            run = load(name, clients, stack)
            bare = self._in_process(self._base_seconds)
            seen = run()
            bare = (bare + self._in_process(self._base_seconds)) / 2
        tally = seen.tally
        rate = len(tally.done) / seen.seconds
        status = percentiles(seen.status) + f", {seen.silent} failed" * bool(seen.silent)
        lost = [str(tally.lost), str(tally.unconnected)]
        generator = f"{100 * tally.processor_seconds / seen.seconds:.1f}"
        return [
            *(name, str(clients), f"{rate:.2f}", f"{rate / bare:.2f}", percentiles(tally.done)),
            *(f"{len(tally.crowd)} + {len(tally.busy)}", percentiles(tally.crowd)),
            *(percentiles(tally.busy), status, *lost),
            *(seen.server, seen.memory, generator),
        ]

    def _asrd(self, _: str, clients: int, stack: contextlib.ExitStack) -> Callable[[], Under]:
        path = stack.enter_context(daemon())
        client = stack.enter_context(Client(path))
        front = int(client.status()["pid"])

        def run() -> Under:
            before = processor_seconds(front)
            seen = self._load("asrd", path, clients, client.status)
            used = (processor_seconds(front) - before) / seen.seconds
            seen.server, seen.memory = f"{100 * used:.1f}", f"{memory_mib(front, 'Rss'):.1f}"
            return seen

        return run

    def _peer(self, _: str, clients: int, stack: contextlib.ExitStack) -> Callable[[], Under]:
        peer = stack.enter_context(serving())
        return lambda: self._load("wyoming", peer.path, clients, peer.question)

    def _load(
        self, protocol: str, path: str, clients: int, question: Callable[[], object]
    ) -> Under:
        argv = [sys.executable, "-m", "tests.benchmarks.loadgen", protocol, path, str(clients)]
        argv += [str(self.load_seconds), str(self._audio)]
        seen = Under(Tally(), self.load_seconds)
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as generator:
            assert generator.stdout is not None
            while generator.poll() is None and not _readable(generator.stdout.fileno()):
                try:
                    seen.status.append(seconds_of(question))
                except (OSError, RuntimeError):
                    seen.silent += 1
                time.sleep(_STATUS_EVERY)
            seen.tally = Tally(**json.load(generator.stdout))
        return seen

    def _in_process(self, seconds: float) -> float:
        """Jobs per second of a bare loop in this process."""
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            options = {"beam_size": 1, "language": "en", "temperature": 0.0}
            list(self._model.transcribe(self._speech, **options)[0])
            count += 1
        return count / (time.perf_counter() - started)


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


if __name__ == "__main__":
    main()
