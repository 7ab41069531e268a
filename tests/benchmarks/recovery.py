"""From a worker's death to the next success, idle and in the middle of a request, and the peers'.

    python -m tests.benchmarks.recovery [--kills N] [--seconds S] [--patience P]

All are up at once and killed in turn (SIGKILL), `--kills` times or for `--seconds`. Beside them in
each round: what a bare process needs for interpreter, imports, load and a first answer. A hot spare
is measured where `asrd run` knows `--spares`. For the real size see real_size.py.
"""

import contextlib
import os
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from asrd import Client
from asrd.demo import MODEL
from tests.benchmarks.bare import Stages, bare
from tests.benchmarks.deathlog import DeathLog, Parts
from tests.benchmarks.measure import (
    CONFIG,
    as_a_worker,
    daemon,
    machine,
    parser,
    pcm,
    percentile,
    run_takes,
    seconds_of,
    speech,
    table,
    wait_until_ready,
)
from tests.benchmarks.peers import WYOMING, Wyoming, missing, serving

_CONFIG = f"[front]\nqueue_max = 4\n{CONFIG}"
_SPARES = "--spares"


class Scenario(Protocol):
    name: str

    def settle(self) -> None:
        """Until a kill would hit what is whole again."""

    def undisturbed(self) -> float: ...
    def idle(self) -> float: ...
    def busy(self) -> float: ...
    def in_flight(self) -> str:
        """What became of the requests whose workers were killed."""


class Asrd:
    """`asrd run`, killed at its first worker."""

    def __init__(self, name: str, path: str, client: Client, log: DeathLog | None = None) -> None:
        self.name = name
        self._path = path
        self._client = client
        self._log = log
        self._audio = speech(3)
        self._answered = 0
        self.parts: list[Parts] = []

    def settle(self) -> None:
        wait_until_ready(self._path)

    def undisturbed(self) -> float:
        return seconds_of(self._ask)

    def idle(self) -> float:
        victim = next(worker for worker in self._workers() if worker["state"] == "ready")
        killed = time.monotonic()
        os.kill(int(victim["pid"]), signal.SIGKILL)
        taken = seconds_of(self._ask)
        if self._log is not None:
            load = next(w["load_seconds"] for w in self._workers() if w["name"] == victim["name"])
            self.parts += self._log.parts(killed, time.monotonic(), load)
        return taken

    def busy(self) -> float:
        """A request whose worker dies at its first window: from the kill to its transcript."""
        killed: list[float] = []

        def kill(_: object) -> None:
            if not killed:
                busy = [worker for worker in self._workers() if worker["job_id"] is not None]
                os.kill(int(busy[0]["pid"]), signal.SIGKILL)
                killed.append(time.monotonic())

        self._ask(on_progress=kill)
        self._answered += 1
        return time.monotonic() - killed[0]

    def in_flight(self) -> str:
        return f"{self._answered} got their transcript"

    def _workers(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self._client.status()["workers"]
        return workers

    def _ask(self, **more: Any) -> None:
        options: dict[str, Any] = {"language": "en", "temperature": 0.0, "timeout": 60}
        self._client.transcribe(self._audio, **options, **more)


class Other:
    """A peer; who asks it again and again gets an answer, or gives up after `patience` seconds."""

    name = WYOMING

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._audio = pcm(speech(3))
        self._outcomes: Counter[str] = Counter()
        self._hanging: list[threading.Thread] = []
        self._stack = contextlib.ExitStack()
        self._start()

    def _start(self) -> None:
        self._stack.close()
        self._peer = self._stack.enter_context(serving())

    def close(self) -> None:
        for thread in self._hanging:
            thread.join()
        self._stack.close()

    def settle(self) -> None:
        if self._until_success(self._peer) == float("inf"):
            self._start()

    def undisturbed(self) -> float:
        return seconds_of(lambda: self._peer.ask(self._audio))

    def idle(self) -> float:
        os.kill(self._peer.worker_pid(), signal.SIGKILL)
        return self._until_success(self._peer)

    def busy(self) -> float:
        """From the kill to the next success of somebody else."""
        usual = self.undisturbed()
        self._hanging.append(threading.Thread(target=self._ask_and_tell))
        self._hanging[-1].start()
        time.sleep(usual / 2)
        os.kill(self._peer.worker_pid(), signal.SIGKILL)
        return self._until_success(self._peer)

    def in_flight(self) -> str:
        for thread in self._hanging:
            thread.join()
        return ", ".join(f"{count} {what}" for what, count in self._outcomes.items())

    def _until_success(self, peer: Wyoming) -> float:
        start = time.monotonic()
        while (left := start + self._patience - time.monotonic()) > 0:
            with contextlib.suppress(OSError, RuntimeError):
                peer.ask(self._audio, timeout=left)
                return time.monotonic() - start
            time.sleep(0.005)
        return float("inf")

    def _ask_and_tell(self) -> None:
        peer = self._peer.another()
        try:
            peer.ask(self._audio, timeout=self._patience)
            told = "got their transcript"
        except TimeoutError:
            told = f"heard nothing in {self._patience:g} s"
        except (OSError, RuntimeError) as error:
            told = f"got {str(error) or type(error).__name__}"
        finally:
            peer.close()
        self._outcomes[told] += 1


def main() -> None:
    made = parser(__doc__, 200)
    made.add_argument("--kills", type=int, default=50, help="default: %(default)s")
    made.add_argument("--patience", type=float, default=15, help="with peers that hang, seconds")
    arguments = made.parse_args()
    as_a_worker("tests.benchmarks.recovery")
    print(machine())
    with contextlib.ExitStack() as stack:
        bench = _Bench(stack, arguments.patience)
        end = time.monotonic() + arguments.seconds
        for done in range(arguments.kills):
            if done > 1 and time.monotonic() > end:
                break
            bench.round()
        bench.report(arguments.patience)


class _Bench:
    def __init__(self, stack: contextlib.ExitStack, patience: float) -> None:
        self._audio = pcm(speech(3))
        self._bare: list[Stages] = []
        self._log = stack.enter_context(DeathLog.open())
        self._asrd = [self._start_asrd(stack, "asrd, 1 worker", "1", log=self._log)]
        self._asrd.append(self._start_asrd(stack, "asrd, 2 workers", "2"))
        if run_takes(_SPARES):
            name = "asrd, 1 worker and a hot spare"
            self._asrd.append(self._start_asrd(stack, name, "1", _SPARES, "1"))
        self._absent = missing()
        self._others = [] if self._absent else [Other(patience)]
        for other in self._others:
            stack.callback(other.close)
        self._scenarios: list[Scenario] = [*self._asrd, *self._others]
        self._times: dict[str, list[float]] = {}

    def _start_asrd(
        self, stack: contextlib.ExitStack, name: str, *more: str, log: DeathLog | None = None
    ) -> Asrd:
        sink = subprocess.DEVNULL if log is None else log.sink
        path = stack.enter_context(daemon("--workers", *more, config=_CONFIG, stderr=sink))
        return Asrd(name, path, stack.enter_context(Client(path)), log)

    def round(self) -> None:
        self._bare.append(bare(MODEL, self._audio))
        for scenario in self._scenarios:
            self._measure(scenario, "undisturbed", scenario.undisturbed)
            self._measure(scenario, "killed idle", scenario.idle)
            self._measure(scenario, "killed in a request", scenario.busy)

    def _measure(self, scenario: Scenario, how: str, call: Callable[[], float]) -> None:
        scenario.settle()
        self._times.setdefault(f"{scenario.name}, {how}", []).append(call())

    def report(self, patience: float) -> None:
        whole = [stages.whole for stages in self._bare]
        rows = [_row("bare process, to its first answer", whole, whole, patience)]
        rows += [_row(name, times, whole, patience) for name, times in self._times.items()]
        if self._absent:
            rows.append([WYOMING, self._absent, "", "", "", ""])
        header = ["3 s of audio", "n", "p50 ms", "p95 ms", "max ms", "÷ bare, paired p50"]
        table("From the kill to the next success", header, rows)
        told = [[scenario.name, scenario.in_flight()] for scenario in self._scenarios]
        table("Requests whose worker was killed", ["", "what became of them"], told)
        _show_stages(self._bare)
        self._show_parts()

    def _show_parts(self) -> None:
        parts = self._asrd[0].parts
        if not parts:
            print("\nThe parts of a recovery: the daemon's log had no lines to tell them by.")
            return
        means = [statistics.mean(values) for values in zip(*map(Parts.values, parts), strict=True)]
        header = ["", *Parts.names(), "sum"]
        row = ["mean ms", *(f"{1000 * mean:.1f}" for mean in [*means, sum(means)])]
        table(f"Parts of asrd's recovery, 1 worker killed idle, n = {len(parts)}", header, [row])


def _show_stages(found: list[Stages]) -> None:
    header = ["", "interpreter", "imports", "load", "first answer", "sum"]
    columns = [
        [stages.interpreter, stages.imports, stages.load, stages.answer, stages.whole]
        for stages in found
    ]
    means = [f"{1000 * statistics.mean(column):.1f}" for column in zip(*columns, strict=True)]
    table("Parts of the bare process", header, [["mean ms", *means]])


def _row(name: str, times: list[float], base: list[float], patience: float) -> list[str]:
    def show(seconds: float) -> str:
        return f"{1000 * seconds:.0f}" if seconds < float("inf") else f"never ({patience:g} s)"

    shown = [show(percentile(times, share)) for share in (0.5, 0.95, 1)]
    ratios = [a / b for a, b in zip(times, base, strict=False)]
    ratio = percentile(ratios, 0.5)
    return [name, str(len(times)), *shown, f"{ratio:.2f}" if ratio < float("inf") else "-"]


if __name__ == "__main__":
    main()
