"""Workers on a CPU: compute type, threads, and how long waiting threads spin.

    python -m tests.benchmarks.cpu [--models NAME ...] [--seconds S] [--spins N ...]

Each way is an `asrd run` of its own with as many clients as workers; all of them wait while one is
measured. A round is two commands and one recording of half a minute for each client. "÷" is the
paired median ratio to the first way with the same compute type and number of workers. Processor
seconds count all threads, also those that only spin. GOMP_SPINCOUNT 0 means that threads never
spin, 1000 is asrd's. libgomp's own default is 300000 (`--spins 1000 300000`); it is not measured
where workers compete for the cores, since that takes minutes for each command.
"""

import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asrd import Client
from asrd.cores import usable
from tests.benchmarks import measure

_COMMANDS, _SECONDS = 2, 30
_SPINS = (1000, 300, 100, 0)
_SPINS_OF_COMPETITORS = 10_000
_COMMAND, _LONG = "command", "long"


class Way(NamedTuple):
    """The settings of a daemon. `threads`: of each worker, 0 for a share of the cores."""

    compute_type: str
    workers: int
    threads: int
    spins: int


@dataclass
class Bench:
    """A daemon and its times: of each round, the seconds and the processor seconds of each part."""

    socket: str
    pids: list[int]
    threads: int
    wall: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, part: str, audio: Any, jobs: int) -> None:
        before = self._processor_seconds()
        with ThreadPoolExecutor(len(self.pids)) as pool:
            seconds = measure.seconds_of(lambda: list(pool.map(self._ask, [audio] * jobs)))
        self.wall.setdefault(part, []).append(seconds)
        self.processor.setdefault(part, []).append(self._processor_seconds() - before)

    def forget(self) -> None:
        self.wall.clear()
        self.processor.clear()

    def _ask(self, audio: Any) -> None:
        with Client(self.socket) as client:
            client.transcribe(audio, **measure.OPTIONS)

    def _processor_seconds(self) -> float:
        return sum(map(measure.processor_seconds, self.pids))


def main() -> None:
    made = measure.parser(__doc__, 600)
    made.add_argument("--models", nargs="*", default=["tiny.en", "base"], metavar="NAME")
    made.add_argument("--spins", nargs="*", type=int, default=list(_SPINS), metavar="N")
    made.add_argument("--compute-types", nargs="*", default=["int8", "float32"], metavar="TYPE")
    arguments = made.parse_args()
    print(measure.machine())
    runs = [(model, kind) for model in arguments.models for kind in arguments.compute_types]
    for model, kind in runs:
        ways = list(_ways(kind, arguments.spins, usable()))
        _compare(model, ways, arguments.seconds / len(runs))


def _ways(kind: str, spins: list[int], cores: int) -> Iterator[Way]:
    """Yields one worker with all cores, two that share them, and two that each take all."""
    for workers, threads in ((1, 0), (2, 0), (2, cores)):
        # A single thread waits for nobody.
        alone = workers == 2 and threads == 0 and cores < 4
        for count in spins[:1] if alone else spins:
            if not (threads and count > _SPINS_OF_COMPETITORS):
                yield Way(kind, workers, threads, count)


def _compare(model: str, ways: list[Way], seconds: float) -> None:
    found = measure.model_named(model)
    command, long = found.speech(3), found.speech(_SECONDS)
    with ExitStack() as stack:
        benches = {way: stack.enter_context(_daemon(found, way)) for way in ways}

        def round_of(bench: Bench) -> Callable[[], object]:
            def run() -> None:
                clients = len(bench.pids)
                bench.measure(_COMMAND, command, _COMMANDS * clients)
                bench.measure(_LONG, long, clients)

            return run

        rounds = {str(way): round_of(bench) for way, bench in benches.items()}
        measure.interleave(rounds, 0, warm=0, least=1)
        for bench in benches.values():
            bench.forget()
        measure.interleave(rounds, seconds, warm=0, least=2)
    header = ["compute type", "workers", "threads of each", "GOMP_SPINCOUNT"]
    header += ["commands/s", "÷", "processor s each"]
    header += ["audio minutes/min", "÷", "processor s per audio minute"]
    measure.table(f"{model}: clients as many as workers", header, list(_rows(benches)))


def _rows(benches: dict[Way, Bench]) -> Iterator[list[str]]:
    first: dict[tuple[str, int], Bench] = {}
    for way, bench in benches.items():
        base = first.setdefault((way.compute_type, way.workers), bench)
        row = [way.compute_type, str(way.workers), str(bench.threads), str(way.spins)]
        for part, jobs in ((_COMMAND, _COMMANDS), (_LONG, _SECONDS / 60)):
            amount = jobs * way.workers
            rate = amount / statistics.median(bench.wall[part])
            pairs = zip(bench.wall[part], base.wall[part], strict=True)
            ratio = statistics.median(base / own for own, base in pairs)
            processor = statistics.median(bench.processor[part]) / amount
            speed = rate if part == _COMMAND else 60 * rate
            row += [f"{speed:.1f}", f"{ratio:.2f}", f"{processor:.2f}"]
        yield row


@contextmanager
def _daemon(model: measure.Model, way: Way) -> Iterator[Bench]:
    lines = [f"cpu_threads = {way.threads}", f'compute_type = "{way.compute_type}"']
    config = "\n".join(["[worker]", *lines, ""])
    before = os.environ.get("GOMP_SPINCOUNT")
    os.environ["GOMP_SPINCOUNT"] = str(way.spins)
    try:
        started = measure.daemon("--workers", str(way.workers), model=model.path, config=config)
        with started as path:
            workers = measure.wait_until_ready(path)
            pids = [worker["pid"] for worker in workers]
            yield Bench(path, pids, workers[0].get("cpu_threads", way.threads))
    finally:
        os.environ.pop("GOMP_SPINCOUNT")
        if before is not None:
            os.environ["GOMP_SPINCOUNT"] = before


if __name__ == "__main__":
    main()
