"""What the daemon's processes hold, as the kernel counts it: at rest, and all the time."""

import itertools
import threading
import time
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak.ledger import Ledger
from tests.support.raw import status

if TYPE_CHECKING:
    from tests.soak.host import Host

_EVERY_SECONDS = 0.5
_MOMENT = 0.5
_SERVING = ("ready", "busy")


@dataclass(frozen=True)
class Holding:
    """Of one process at one moment; or, of several moments, the least of each."""

    rss_kib: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, proc: Path) -> "Holding":
        """`proc` is the process' directory. Raises OSError or ValueError where it has ended."""
        told = dict(
            line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
        )
        if "VmRSS" not in told:
            raise ValueError(f"{proc} has no memory")
        descriptors = len(list((proc / "fd").iterdir()))
        return cls(int(told["VmRSS"].split()[0]), descriptors, int(told["Threads"]))

    def least(self, other: "Holding") -> "Holding":
        return Holding(*map(min, zip(astuple(self), astuple(other), strict=True)))

    def exceeds(self, slack: "Holding") -> bool:
        return any(a > b for a, b in zip(astuple(self), astuple(slack), strict=True))

    def __sub__(self, other: "Holding") -> "Holding":
        return Holding(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        rss = self.rss_kib / 1024
        return f"{rss:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


# How much more a process may hold than it did: interpreter, arenas and allocator settle within
# this, a leak of a few jobs' audio would not. A worker's allocator gives nothing back: it holds
# what the largest job that it has met once needed, and the one before may not have met it.
AT_REST = Holding(24 * 1024, 0, 0)
WORKER_AT_REST = Holding(64 * 1024, 0, 0)
AT_WORK = Holding(24 * 1024, 8, 2)


@dataclass
class Trend:
    """How one process' holding moves over its life, in a few numbers however long that is: the
    least of each stretch of time, since at work what it holds goes up and down all the time, and
    only a leak lifts the floor."""

    pid: int
    stretch: float = 5.0
    floors: list[Holding] = field(default_factory=list)
    _until: float = 0.0

    _FLOORS_MAX = 64
    # A process takes what it needs at first; and a line through few points says little.
    _SETTLING, _FLOORS_MIN = 0.25, 10

    def add(self, now: float, held: Holding) -> None:
        if self.floors and now < self._until:
            self.floors[-1] = self.floors[-1].least(held)
            return
        if len(self.floors) == self._FLOORS_MAX:
            pairs = zip(self.floors[::2], self.floors[1::2], strict=True)
            self.floors = [a.least(b) for a, b in pairs]
            self.stretch *= 2
        self.floors.append(held)
        self._until = now + self.stretch

    @property
    def seconds(self) -> float:
        return len(self.floors) * self.stretch

    def rise(self, but_a_step: bool = False) -> Holding | None:
        """From the first to the last, along the straight line that fits best, after it has
        settled; None if it did not live for long enough. `but_a_step`: the greatest step of the
        memory is left out, that of a worker which meets the job that needs most."""
        settled = self.floors[round(self._SETTLING * len(self.floors)) :]
        if len(settled) < self._FLOORS_MIN:
            return None
        columns = list(zip(*map(astuple, settled), strict=True))
        if but_a_step:
            columns[0] = _without_a_step(columns[0])
        return Holding(*(round(_slope(column) * (len(settled) - 1)) for column in columns))

    def __str__(self) -> str:
        rise = self.rise()
        if rise is None:
            return f"no trend: the longest lived {self.seconds:.0f} s"
        return (
            f"{rise.rss_kib / 1024:+.1f} MiB, {rise.descriptors:+d} descriptors, "
            f"{rise.threads:+d} threads in the last {(1 - self._SETTLING) * self.seconds:.0f} s "
            f"of {self.seconds:.0f} s"
        )


def _slope(values: tuple[int, ...]) -> float:
    """Of the line of least squares, from one value to the next."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    deviations = [(x - middle, y - mean) for x, y in enumerate(values)]
    return sum(x * y for x, y in deviations) / sum(x * x for x, _ in deviations)


def _without_a_step(values: tuple[int, ...]) -> tuple[int, ...]:
    rises = [b - a for a, b in itertools.pairwise(values)]
    rises[rises.index(max(rises))] = 0
    return tuple(itertools.accumulate(rises, initial=values[0]))


@dataclass(frozen=True)
class Snapshot:
    """Of all of the daemon, at rest: each process by name, and every file it may have made."""

    holdings: dict[str, Holding]
    files: set[str]

    @classmethod
    def take(cls, host: "Host") -> "Snapshot":
        # Until the front has forgotten the one who asked.
        pids = {**host.pids(), **host.helpers()}
        time.sleep(_MOMENT)
        return cls({name: host.holding(pid) for name, pid in pids.items()}, host.files())

    def growth(self, later: "Snapshot") -> list[str]:
        """What has grown from this one to the later one, both at rest."""
        grown = [
            f"{name} grew: {was}, then {now}"
            for name, was in self.holdings.items()
            for now in [later.holdings[name]]
            if (now - was).exceeds(WORKER_AT_REST if name.startswith("worker") else AT_REST)
        ]
        left = later.files - self.files
        return grown + ([f"files left behind: {sorted(left)}"] if left else [])


class Watch:
    """Looks at the daemon all the time: who lives, and how much each one holds."""

    def __init__(self, ledger: Ledger, host: "Host") -> None:
        self._ledger = ledger
        self._host = host
        self._served_at = time.monotonic()
        self._front = 0
        self.fronts = 0
        self.front_peak_kib = 0
        # By name: the process that lives, and the one that lived longest.
        self._living: dict[str, Trend] = {}
        self.longest: dict[str, Trend] = {}

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(_EVERY_SECONDS):
            self._look()

    def growth(self) -> list[str]:
        """What grew over the life of the processes that lived longest."""
        trends = self.longest.items()
        rises = [(name, trend, trend.rise(name.startswith("worker"))) for name, trend in trends]
        return [f"{name} grows: {t}" for name, t, rise in rises if rise and rise.exceeds(AT_WORK)]

    def _look(self) -> None:
        born = self._host.processes()
        if born > 1 + len(self._host.workers) + self._host.spares:
            self._ledger.fail(f"{born} processes: more than one front, or worker of a name")
        try:
            told = status(self._host.socket)
        except (OSError, AssertionError):
            # On its way back; or it never comes back, which every client will tell.
            return
        self._served(any(worker["state"] in _SERVING for worker in told["workers"]))
        self._met(told["pid"])
        self._weigh("front", told["pid"])
        for worker in told["workers"]:
            if worker["state"] in _SERVING and worker["pid"]:
                self._weigh(f"worker {worker['name']}", worker["pid"])
        for name, pid in self._host.helpers().items():
            self._weigh(name, pid)

    def _weigh(self, name: str, pid: int) -> None:
        try:
            held = self._host.holding(pid)
        except (OSError, ValueError):
            return
        trend = self._living.get(name)
        if trend is None or trend.pid != pid:
            trend = self._living[name] = Trend(pid)
        trend.add(time.monotonic(), held)
        if name not in self.longest or trend.seconds > self.longest[name].seconds:
            self.longest[name] = trend
        if name == "front":
            self.front_peak_kib = max(self.front_peak_kib, held.rss_kib)

    def _served(self, now_served: bool) -> None:
        """Whatever is killed, somebody must be back to work before long."""
        now, limits = time.monotonic(), self._ledger.limits
        if now_served:
            self._served_at = now
        elif now - self._served_at > limits.slow_death + limits.grace:
            self._ledger.fail(f"no worker at all for {now - self._served_at:.0f} s")
            self._served_at = now

    def _met(self, pid: int) -> None:
        if pid == self._front:
            return
        if self._front and not self._ledger.struck_pid("front", self._front):
            self._ledger.fail(f"the front {self._front} ended, and nobody killed it")
        self._front = pid
        self.fronts += 1
