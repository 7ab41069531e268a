"""What the daemon's processes hold, as the kernel counts it."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.process.daemons import descriptors, resident_kib
from tests.process.raw import status
from tests.soak.ledger import Ledger

_EVERY_SECONDS = 0.5
_MOMENT = 0.5
_SERVING = ("ready", "busy")


@dataclass(frozen=True)
class Holding:
    """Of one process at one moment."""

    rss_kib: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Holding":
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        return cls(resident_kib(pid), descriptors(pid), threads)

    def __str__(self) -> str:
        rss = self.rss_kib / 1024
        return f"{rss:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


def children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


@dataclass(frozen=True)
class Snapshot:
    """Of all of the daemon, at rest; `front` is its pid."""

    front: int
    holdings: dict[str, Holding]

    @classmethod
    def take(cls, socket: str, supervisor: int) -> "Snapshot":
        told = status(socket)
        # Until the front has forgotten the one who asked.
        time.sleep(_MOMENT)
        pids = {"supervisor": supervisor, "front": told["pid"]}
        pids |= {f"worker {worker['name']}": worker["pid"] for worker in told["workers"]}
        return cls(told["pid"], {name: Holding.of(pid) for name, pid in pids.items()})

    def growth(self, later: "Snapshot", slack_kib: int) -> list[str]:
        """What has grown from this one to the later one, both at rest; memory by more than
        `slack_kib`."""
        return [
            f"{name} grew: {was}, then {now}"
            for name, was in self.holdings.items()
            for now in [later.holdings[name]]
            if now.descriptors > was.descriptors
            or now.threads > was.threads
            or now.rss_kib > was.rss_kib + slack_kib
        ]


class Watch:
    """Looks at the daemon all the time: who lives, and how much the front holds."""

    def __init__(self, ledger: Ledger, socket: str, supervisor: int, processes: int) -> None:
        self._ledger = ledger
        self._socket = socket
        self._supervisor = supervisor
        self._processes = processes
        self.front_peak_kib = 0
        self._served_at = time.monotonic()
        self.fronts: list[int] = []

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        born = children(self._supervisor)
        if len(born) > self._processes:
            self._ledger.fail(f"the supervisor has {len(born)} children")
        try:
            told = status(self._socket)
            pid = told["pid"]
            self._served(any(worker["state"] in _SERVING for worker in told["workers"]))
            self.front_peak_kib = max(self.front_peak_kib, resident_kib(pid))
        except (OSError, AssertionError):
            # On its way back; or it never comes back, which every client will tell.
            return
        self._met(pid)

    def _served(self, now_served: bool) -> None:
        """Whatever is killed, somebody must be back to work before long."""
        now, limits = time.monotonic(), self._ledger.limits
        if now_served:
            self._served_at = now
        elif now - self._served_at > limits.slow_death + limits.grace:
            self._ledger.fail(f"no worker at all for {now - self._served_at:.0f} s")
            self._served_at = now

    def _met(self, pid: int) -> None:
        if self.fronts and pid != self.fronts[-1]:
            killed = {fault.pid for fault in self._ledger.faults if fault.target == "front"}
            if self.fronts[-1] not in killed:
                self._ledger.fail(f"the front {self.fronts[-1]} ended, and nobody killed it")
        if pid not in self.fronts:
            self.fronts.append(pid)
