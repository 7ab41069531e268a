"""Turns and checkpoints: what a long recording costs others, and what a death costs the recording.

    python -m tests.benchmarks.turns [--model M] [--minutes N] [--seconds S]

One worker with the default settings. In each round a file of `--minutes` runs alone, with a command
of 3 s every two seconds, with a SIGSEGV to its worker at 80 %, and with two SIGTERM (a restart) to
its worker. Before each of these the command is measured on the idle worker. English, temperature
0, so that all transcripts of the file must be equal.
"""

import contextlib
import os
import signal
import statistics
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asrd import Client
from tests.benchmarks import measure
from tests.support.played import in_background

_COMMAND_SECONDS, _EVERY_SECONDS = 3, 2
_WINDOW_SECONDS = 30
# Shares of the file at which its worker gets a signal.
_CRASH, _RESTARTS = 0.8, (0.3, 0.6)


@dataclass
class Round:
    """Times in seconds; those of the file are whole."""

    idle: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    alone: float = 0.0
    shared: float = 0.0
    crashed: float = 0.0
    restarted: float = 0.0
    load: float = 0.0
    equal: bool = True


class Bench:
    def __init__(self, path: str, client: Client, model: measure.Model, minutes: float) -> None:
        self._path = path
        self._client = client
        self._file = measure.pcm(model.speech(60 * minutes))
        self._command = model.speech(_COMMAND_SECONDS)
        self._seconds = 60 * minutes
        self._text = ""

    def round(self) -> Round:
        seen = Round()
        self._measure_idle(seen)
        seen.alone = self._run_file(seen, {})
        self._measure_idle(seen)
        with in_background(partial(self._send_commands, seen)):
            seen.shared = self._run_file(seen, {})
        self._measure_idle(seen)
        seen.crashed = self._run_file(seen, {_CRASH: signal.SIGSEGV})
        self._measure_idle(seen)
        seen.restarted = self._run_file(seen, dict.fromkeys(_RESTARTS, signal.SIGTERM))
        seen.load = self._worker()["load_seconds"]
        return seen

    def _worker(self) -> dict[str, Any]:
        worker: dict[str, Any] = self._client.status()["workers"][0]
        return worker

    def _measure_idle(self, seen: Round) -> None:
        measure.wait_until_ready(self._path)
        self._ask(self._client)
        seen.idle += [measure.seconds_of(partial(self._ask, self._client)) for _ in range(5)]

    def _ask(self, client: Client) -> None:
        client.transcribe(self._command, **measure.OPTIONS)

    def _send_commands(self, seen: Round, stop: threading.Event) -> None:
        """Sends a command two seconds after the last one, from another connection."""
        with Client(self._path) as other:
            while not stop.wait(_EVERY_SECONDS):
                seen.beside.append(measure.seconds_of(partial(self._ask, other)))

    def _run_file(self, seen: Round, signals: dict[float, signal.Signals]) -> float:
        """Returns the file's time; its worker gets each signal at a share of it."""
        waiting = sorted(signals.items())

        def on_progress(progress: Any) -> None:
            pid = self._worker()["pid"]
            if waiting and pid and progress.audio_seconds_done >= waiting[0][0] * self._seconds:
                os.kill(pid, waiting.pop(0)[1])

        started = time.monotonic()
        options = {**measure.OPTIONS, "encoding": "pcm_s16le", "on_progress": on_progress}
        with contextlib.closing(self._client.stream(self._file, **options)) as stream:
            text = "".join(segment.text for segment in stream)
        taken = time.monotonic() - started
        self._text = self._text or text
        seen.equal = seen.equal and text == self._text
        return taken


def main() -> None:
    made = measure.parser(__doc__, 900, "base")
    made.add_argument("--minutes", type=float, default=10, help="default: %(default)g")
    arguments = made.parse_args()
    measure.use_worker_environment()
    print(measure.machine())
    with (
        measure.daemon(model=arguments.model.path, config="") as path,
        Client(path) as client,
    ):
        bench = Bench(path, client, arguments.model, arguments.minutes)
        rounds = [bench.round() for _ in measure.rounds(arguments.seconds, 2)]
    _report(rounds, 60 * arguments.minutes)


def _report(rounds: list[Round], seconds: float) -> None:
    idle = statistics.median(time for seen in rounds for time in seen.idle)
    beside = [time for seen in rounds for time in seen.beside]
    window = statistics.median(seen.alone for seen in rounds) / (seconds / _WINDOW_SECONDS)
    load = statistics.median(seen.load for seen in rounds)
    own = [(r.shared - len(r.beside) * idle - r.alone) / r.alone for r in rounds]
    crashes = [seen.crashed - seen.alone for seen in rounds]
    restarts = [(seen.restarted - seen.alone) / len(_RESTARTS) for seen in rounds]
    rows = [
        ["a command, idle worker: p50", f"{idle:.2f} s", ""],
        ["one window of the file", f"{window:.2f} s", ""],
        ["one load of the model", f"{load:.2f} s", ""],
        [
            f"a command beside the file: p50, p95, max of {len(beside)}",
            ", ".join(f"{measure.percentile(beside, share):.2f}" for share in (0.5, 0.95, 1)),
            f"p95 ≤ {idle + 1.3 * window:.2f} s",
        ],
        [
            "the file's own cost, beyond the commands' time: each round",
            ", ".join(f"{100 * share:+.1f} %" for share in own),
            "≤ 3 %",
        ],
        [
            "SIGSEGV at 80 %: the file's additional time, each round",
            ", ".join(f"{time:.2f}" for time in crashes),
            f"≤ {window:.2f} s and one restart",
        ],
        [
            "a restart under the file: its additional time, each round",
            ", ".join(f"{time:.2f}" for time in restarts),
            f"≤ {2 * window + load:.2f} s",
        ],
        ["all transcripts of the file are equal", str(all(r.equal for r in rounds)), "True"],
    ]
    measure.table(f"{seconds / 60:g} minutes, {len(rounds)} rounds", ["", "", "goal"], rows)


if __name__ == "__main__":
    main()
