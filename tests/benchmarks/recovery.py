"""Time from a worker's death to the next success: asrd and a peer, idle and during a request.

    python -m tests.benchmarks.recovery [--model M] [--kills N] [--seconds S]

All servers run at once, and their workers are killed in turn (SIGKILL), `--kills` times or for
`--seconds`. Each round also measures a bare process from its start to its first answer. For a model
of real size see real_size.py.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asrd import Client
from tests.benchmarks import measure
from tests.benchmarks.bare import bare
from tests.benchmarks.peers import WYOMING, Wyoming, missing, serving

_CONFIG = f"[front]\nqueue_max = 4\n{measure.CONFIG}"


class Asrd:
    """`asrd run`; the worker that dies is a ready one or the busy one."""

    def __init__(
        self, stack: contextlib.ExitStack, model: measure.Model, name: str, *arguments: str
    ) -> None:
        self.name = name
        self.answered = 0
        self._path = stack.enter_context(
            measure.daemon(*arguments, model=model.path, config=_CONFIG)
        )
        self._client = stack.enter_context(Client(self._path))
        self._audio = model.speech(3)

    def settle(self) -> None:
        """Waits until no earlier kill has an effect any more."""
        measure.wait_until_ready(self._path)

    def undisturbed(self) -> float:
        return measure.seconds_of(self._ask)

    def idle(self) -> float:
        self._kill(lambda worker: worker["state"] == "ready")
        return measure.seconds_of(self._ask)

    def busy(self) -> float:
        """Kills the worker at its first window. Returns the seconds until the transcript of the
        same request."""
        killed: list[float] = []

        def kill(_: object) -> None:
            if not killed:
                self._kill(lambda worker: worker["jobs"])
                killed.append(time.monotonic())

        self._ask(on_progress=kill)
        self.answered += 1
        return time.monotonic() - killed[0]

    def _kill(self, chosen: Callable[[dict[str, Any]], bool]) -> None:
        victim = next(worker for worker in self._client.status()["workers"] if chosen(worker))
        os.kill(int(victim["pid"]), signal.SIGKILL)

    def _ask(self, **more: Any) -> None:
        self._client.transcribe(self._audio, **measure.ASKED, timeout=60, **more)


class Peer:
    """wyoming-faster-whisper; a client repeats its request until it gets an answer."""

    name = WYOMING

    def __init__(self, stack: contextlib.ExitStack, model: measure.Model) -> None:
        self.answered = 0
        self._peer = stack.enter_context(serving(model.path))
        self._other = stack.enter_context(contextlib.closing(Wyoming(self._peer.path)))
        self._pool = stack.enter_context(ThreadPoolExecutor(1))
        self._audio = measure.pcm(model.speech(3))

    def settle(self) -> None:
        self._until_success()

    def undisturbed(self) -> float:
        return measure.seconds_of(lambda: self._peer.ask(self._audio))

    def idle(self) -> float:
        self._peer.kill()
        return self._until_success()

    def busy(self) -> float:
        """Kills the server in the middle of a request. Returns the seconds until the next success
        of another client."""
        usual = self.undisturbed()
        request = self._pool.submit(self._other.ask, self._audio)
        time.sleep(usual / 2)
        self._peer.kill()
        taken = self._until_success()
        self.answered += request.exception() is None
        return taken

    def _until_success(self) -> float:
        return measure.seconds_of(lambda: self._peer.ask_until_answered(self._audio))


def main() -> None:
    made = measure.parser(__doc__, 400, "base")
    made.add_argument("--kills", type=int, default=50, help="default: %(default)s")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    model = arguments.model
    with contextlib.ExitStack() as stack:
        servers: list[Asrd | Peer] = [
            Asrd(stack, model, "asrd, 1 worker"),
            Asrd(stack, model, "asrd, 2 workers", "--workers", "2"),
            Asrd(stack, model, "asrd, 1 worker and a hot spare", "--spares", "1"),
        ]
        if not missing():
            servers.append(Peer(stack, model))
        base: list[float] = []
        loaded: list[float] = []
        times: dict[str, list[float]] = {}
        for _ in measure.rounds(arguments.seconds, 2, arguments.kills):
            process = bare(model.path, measure.pcm(model.speech(3)))
            base.append(process.answered)
            loaded.append(process.loaded)
            for server in servers:
                _kill_each_way(server, times)
    _report(servers, base, {"bare process, until its model is loaded": loaded, **times})


def _kill_each_way(server: Asrd | Peer, times: dict[str, list[float]]) -> None:
    for how, call in (
        ("undisturbed", server.undisturbed),
        ("killed idle", server.idle),
        ("killed in a request", server.busy),
    ):
        server.settle()
        times.setdefault(f"{server.name}, {how}", []).append(call())


def _report(servers: list[Asrd | Peer], base: list[float], times: dict[str, list[float]]) -> None:
    rows = []
    for name, taken in {"bare process, to its first answer": base, **times}.items():
        shown = [f"{1000 * measure.percentile(taken, share):.0f}" for share in (0.5, 0.95, 1)]
        ratios = [a / b for a, b in zip(taken, base, strict=True)]
        rows.append([name, str(len(taken)), *shown, f"{measure.percentile(ratios, 0.5):.2f}"])
    if absent := missing():
        rows.append([WYOMING, absent, "", "", "", ""])
    header = ["3 s of audio", "n", "p50 ms", "p95 ms", "max ms", "÷ bare, paired p50"]
    measure.table("From the kill to the next success", header, rows)
    answered = [[server.name, f"{server.answered} of {len(base)}"] for server in servers]
    header = ["", "requests whose worker was killed that got their transcript"]
    measure.table("Retried requests", header, answered)


if __name__ == "__main__":
    main()
