"""The memory, descriptors and threads of the daemon's processes, at rest and at work."""

import itertools
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.soak.ledger import Ledger
from tests.support.raw import status

if TYPE_CHECKING:
    from tests.soak.host import Host

_EVERY_SECONDS = 0.5
_MOMENT = 0.5
_SERVING = ("ready", "busy")


class Holding(NamedTuple):
    """The resources of one process at one moment, or the least of each of several moments."""

    rss_kib: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, proc: Path) -> "Holding":
        """Reads `proc`, the process's directory. Raises OSError or ValueError if it has ended."""
        status = dict(
            line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
        )
        if "VmRSS" not in status:
            raise ValueError(f"{proc} has no memory")
        descriptors = len(list((proc / "fd").iterdir()))
        return cls(int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"]))

    def least(self, other: "Holding") -> "Holding":
        return Holding(*map(min, self, other))

    def exceeds(self, slack: "Holding") -> bool:
        return any(a > b for a, b in zip(self, slack, strict=True))

    def since(self, first: "Holding") -> "Holding":
        return Holding(*(a - b for a, b in zip(self, first, strict=True)))

    def __str__(self) -> str:
        rss = self.rss_kib / 1024
        return f"{rss:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


# The growth that is allowed: interpreter, arenas and allocator settle within it, while a leak of a
# few jobs' audio exceeds it. A worker's allocator gives nothing back: it keeps the memory of the
# largest jobs so far, up to 256 MiB (asrd.worker.trimming), which the one before may not have had.
AT_REST = Holding(24 * 1024, 0, 0)
WORKER_AT_REST = Holding(288 * 1024, 0, 0)
AT_WORK = Holding(24 * 1024, 8, 2)


@dataclass
class Trend:
    """The least holding of one process in each stretch of its life; long lives have long ones.
    At work the holding rises and falls all the time, and only a leak lifts the floor."""

    pid: int
    stretch: float = 5.0
    floors: list[Holding] = field(default_factory=list)
    _until: float = 0.0

    _FLOORS_MAX = 64
    # A process grows at first, and a line through few points means little.
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
        """The growth along the best straight line, without the first quarter; None if the process
        did not live long enough. `but_a_step` leaves out the largest step of the memory: that of a
        worker's largest job."""
        settled = self.floors[round(self._SETTLING * len(self.floors)) :]
        if len(settled) < self._FLOORS_MIN:
            return None
        columns = list(zip(*settled, strict=True))
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
    """The slope of the least-squares line, per value."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    deviations = [(x - middle, y - mean) for x, y in enumerate(values)]
    return sum(x * y for x, y in deviations) / sum(x * x for x, _ in deviations)


def _without_a_step(values: tuple[int, ...]) -> tuple[int, ...]:
    rises = [b - a for a, b in itertools.pairwise(values)]
    rises[rises.index(max(rises))] = 0
    return tuple(itertools.accumulate(rises, initial=values[0]))


@dataclass(frozen=True)
class Snapshot:
    """The daemon at rest: the holding of each process by name, and all files that it may write."""

    holdings: dict[str, Holding]
    files: set[str]

    @classmethod
    def take(cls, host: "Host") -> "Snapshot":
        # The front needs a moment to close the connection of `pids`.
        pids = {**host.pids(), **host.helpers()}
        time.sleep(_MOMENT)
        return cls({name: host.holding(pid) for name, pid in pids.items()}, host.files())

    def growth(self, later: "Snapshot") -> list[str]:
        """The growth until the later snapshot, as problems."""
        grown = [
            f"{name} grew: {was}, then {now}"
            for name, was in self.holdings.items()
            for now in [later.holdings[name]]
            if now.since(was).exceeds(WORKER_AT_REST if name.startswith("worker") else AT_REST)
        ]
        left = later.files - self.files
        return grown + ([f"files left behind: {sorted(left)}"] if left else [])

    def figures(self, later: "Snapshot") -> list[tuple[str, str]]:
        return [
            (f"{name}, {when}", str(snapshot.holdings[name]))
            for name in self.holdings
            for when, snapshot in (("first", self), ("last", later))
        ]


class Watch:
    """Observes which processes live, and their holdings, during the whole campaign."""

    def __init__(self, ledger: Ledger, host: "Host") -> None:
        self._ledger = ledger
        self._host = host
        self._served_at = time.monotonic()
        self._front = 0
        self.fronts = 0
        self.front_peak_kib = 0
        # By name: the living process, and the one that lived longest.
        self._living: dict[str, Trend] = {}
        self.longest: dict[str, Trend] = {}

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(_EVERY_SECONDS):
            self._look()

    def growth(self) -> list[str]:
        """The growth of the processes that lived longest, as problems."""
        trends = self.longest.items()
        rises = [(name, trend, trend.rise(name.startswith("worker"))) for name, trend in trends]
        return [f"{name} grows: {t}" for name, t, rise in rises if rise and rise.exceeds(AT_WORK)]

    def figures(self) -> list[tuple[str, str]]:
        return [
            *((f"{name}, at work", str(trend)) for name, trend in sorted(self.longest.items())),
            ("front, peak", f"{self.front_peak_kib / 1024:.1f} MiB"),
            ("fronts", str(self.fronts)),
        ]

    def _look(self) -> None:
        born = self._host.processes()
        if born > 1 + len(self._host.workers):
            self._ledger.fail(f"{born} processes: more than one front, or worker of a name")
        try:
            answer = status(self._host.socket)
        except (OSError, AssertionError):
            # The front is on its way back. If it never comes back, every client's job fails.
            return
        self._served(any(worker["state"] in _SERVING for worker in answer["workers"]))
        self._met(answer["pid"])
        self._weigh("front", answer["pid"])
        for worker in answer["workers"]:
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
        """Fails if no worker has served for longer than the slowest replacement takes."""
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
