"""Random faults, each of which is recorded before it acts."""

import random
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tests.soak.ledger import Ledger

if TYPE_CHECKING:
    from tests.soak.host import Host

# Weights: signals that are frequent in practice or have found most bugs come most often.
_SIGNALS = {
    signal.SIGSEGV: 3,
    signal.SIGKILL: 3,
    signal.SIGABRT: 2,
    signal.SIGSTOP: 1,
    signal.SIGTERM: 2,
}
_FRONT_SIGNALS = {signal.SIGTERM: 1, signal.SIGKILL: 1}
_WITHOUT_MODEL_SECONDS = 3.0
_SLOW_START_SECONDS = 2.0
_REPLACED_SECONDS = 3.0
_FULL_DISK_SECONDS = 3.0


class Killer:
    def __init__(self, ledger: Ledger, chance: random.Random, host: "Host", every: float) -> None:
        self.ledger = ledger
        self.chance = chance
        self.stop = threading.Event()
        self.host = host
        self._every = every
        # Once set: no fault ends the front; there are no faults at all.
        self.spare_front = threading.Event()
        self.truce = threading.Event()

    def run(self, stop: threading.Event) -> None:
        self.stop = stop
        for act in self._dealt():
            if stop.wait(self.chance.expovariate(1 / self._every)):
                return
            if self.truce.is_set():
                continue
            try:
                act(self)
            except Exception:
                self.ledger.fail(f"{act.__name__} failed:\n{traceback.format_exc()}")

    def _dealt(self) -> Iterator["Act"]:
        """The faults from a shuffled pack, then from the next: each comes within a minute or so."""
        harmless = Counter({**_ACTS, **self.host.acts})
        front_acts = {**_FRONT_ACTS, **self.host.front_acts}
        while True:
            spared = self.spare_front.is_set()
            pack = list((harmless if spared else harmless + Counter(front_acts)).elements())
            self.chance.shuffle(pack)
            for act in pack:
                if not (act in front_acts and self.spare_front.is_set()):
                    yield act

    def worker(self) -> str | None:
        """The name of a living worker."""
        return self.chance.choice(sorted(self.host.pids().keys() - {"front"}) or [None])

    def pid(self, target: str) -> int:
        """The pid of the front or a worker; 0 if there is none."""
        return self.host.pids().get(target, 0)

    def send(self, target: str, number: signal.Signals) -> int:
        """Returns the pid that got the signal; 0 if there is none."""
        if pid := self.pid(target):
            self.ledger.fault(number.name, target, pid, lambda: self.host.signal(pid, number))
        return pid

    def pick(self, table: dict[signal.Signals, int]) -> signal.Signals:
        return self.chance.choices(list(table), list(table.values()))[0]


Act = Callable[[Killer], None]


def _strike_worker(killer: Killer) -> None:
    number = killer.pick(_SIGNALS)
    if name := killer.worker():
        killer.send(name, number)


def _strike_front(killer: Killer) -> None:
    killer.send("front", killer.pick(_FRONT_SIGNALS))


def _take_model_away(killer: Killer) -> None:
    """Takes the model from one worker for a while; the other must do all the work."""
    if not (name := killer.worker()):
        return
    settings = killer.host.settings(name.removeprefix("worker "))
    settings.write_text("model = '/nowhere'\n")
    with killer.ledger.lasting_fault("no model", name):
        try:
            killer.send(name, signal.SIGKILL)
            killer.stop.wait(_WITHOUT_MODEL_SECONDS)
        finally:
            settings.unlink()


def _load_slowly(killer: Killer) -> None:
    """Stops a new worker before it is ready or in its first job, too briefly for the watchdog."""
    if not (name := killer.worker()) or not (old := killer.send(name, signal.SIGKILL)):
        return
    for _ in range(round(_REPLACED_SECONDS / 0.05)):
        if killer.stop.wait(0.05) or killer.pid(name) not in (0, old):
            break
    if (pid := killer.pid(name)) not in (0, old):
        killer.ledger.trick("slow loader")
        killer.host.signal(pid, signal.SIGSTOP)
        killer.stop.wait(_SLOW_START_SECONDS)
        killer.host.signal(pid, signal.SIGCONT)


def _fill_the_disk(killer: Killer) -> None:
    """Fills the disk, and kills a worker while it is full."""
    with killer.ledger.lasting_fault("no space left", "disk"), killer.host.full_disk():
        if name := killer.worker():
            killer.send(name, signal.SIGKILL)
        killer.stop.wait(_FULL_DISK_SECONDS)


_ACTS: dict[Act, int] = {
    _strike_worker: 12,
    _take_model_away: 1,
    _load_slowly: 1,
    _fill_the_disk: 1,
}
_FRONT_ACTS: dict[Act, int] = {_strike_front: 4}
