"""Signals to the daemon's processes, at random, each noted before it is sent."""

import os
import random
import signal
import threading
from pathlib import Path

from asrd.ownedfd import OwnedFd
from tests.process.daemons import Daemon
from tests.process.raw import status
from tests.soak.ledger import Ledger

# Weights: what happens in the field, and what has found most.
_WORKER = {
    signal.SIGSEGV: 3,
    signal.SIGKILL: 3,
    signal.SIGABRT: 2,
    signal.SIGSTOP: 1,
    signal.SIGTERM: 1,
}
_FRONT = {signal.SIGTERM: 1, signal.SIGKILL: 1}
_FRONT_SHARE = 0.25
_MISSING_MODEL_SHARE = 0.05
_WITHOUT_MODEL_SECONDS = 3.0


class Killer:
    """Kills what `asrd run` runs, which is `supervisor`'s children, and nothing else."""

    def __init__(self, ledger: Ledger, chance: random.Random, daemon: Daemon, every: float) -> None:
        self._ledger = ledger
        self._chance = chance
        self._socket = daemon.socket
        self._supervisor = daemon.process.pid
        self._home = daemon.tmp
        self._every = every
        self.spare_front = threading.Event()

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._chance.expovariate(1 / self._every)):
            targets = self._targets()
            if targets is None:
                continue
            if self._chance.random() < _MISSING_MODEL_SHARE:
                self._take_model_away(targets, stop)
            else:
                self._strike(targets)

    def _targets(self) -> dict[str, int] | None:
        """Pids by name; None while the front is on its way back."""
        try:
            told = status(self._socket)
        except (OSError, AssertionError):
            return None
        workers = {f"worker {w['name']}": w["pid"] for w in told["workers"] if w["pid"]}
        return {"front": told["pid"], **workers}

    def _strike(self, targets: dict[str, int]) -> None:
        front = targets.pop("front")
        if self._chance.random() < _FRONT_SHARE and not self.spare_front.is_set():
            self._signal("front", front, _FRONT)
        elif targets:
            name = self._chance.choice(sorted(targets))
            self._signal(name, targets[name], _WORKER)

    def _take_model_away(self, targets: dict[str, int], stop: threading.Event) -> None:
        """From one worker, for a while; the other must do all the work."""
        name = self._chance.choice(sorted(targets.keys() - {"front"}) or [""])
        if not name:
            return
        settings = self._home / f"{name.replace(' ', '-')}.toml"
        settings.write_text("model = '/nowhere'\n")
        try:
            self._signal(name, targets[name], {signal.SIGKILL: 1})
            self._ledger.trick("model taken away")
            stop.wait(_WITHOUT_MODEL_SECONDS)
        finally:
            settings.unlink()

    def _signal(self, target: str, pid: int, table: dict[signal.Signals, int]) -> None:
        number = self._chance.choices(list(table), list(table.values()))[0]
        try:
            with OwnedFd(os.pidfd_open(pid)) as pidfd:
                # Looked at after the pidfd was opened: a recycled pid can't fool us any more.
                if _parent(pid) == self._supervisor:
                    self._ledger.fault(
                        number.name,
                        target,
                        pid,
                        lambda: signal.pidfd_send_signal(pidfd.fileno(), number),
                    )
        except ProcessLookupError:
            return


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
