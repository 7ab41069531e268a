"""The main campaign: real workers, the real engine, and everything at once, on whichever host."""

import json
import random
import shutil
import threading
from pathlib import Path

from asrd.demo import MODEL
from tests.soak import clips, deaths, fairness, hostile, libraries
from tests.soak.crowd import Behaviour, Crowd, in_background
from tests.soak.honest import (
    Context,
    cancelled,
    hurried,
    one_at_a_time,
    one_shot,
    poison,
    stream_by_hand,
)
from tests.soak.host import Host
from tests.soak.killer import Killer
from tests.soak.ledger import Ledger
from tests.soak.limits import LIMITS
from tests.soak.resources import Snapshot, Watch
from tests.support.raw import status, wait_for

BEHAVIOURS: dict[Behaviour, int] = {
    one_shot: 20,
    stream_by_hand: 8,
    libraries.wyoming_package: 8,
    libraries.blocking: 10,
    libraries.asyncio_: 6,
    libraries.trio: 6,
    cancelled: 8,
    hurried: 5,
    poison: 2,
    hostile.bad_audio: 8,
    hostile.half_a_sample: 2,
    hostile.truncate_after_sending: 4,
    hostile.byte_by_byte: 4,
    hostile.hang_up: 8,
    hostile.stall: 2,
    hostile.drip: 1,
    hostile.never_read: 1,
    hostile.flood_descriptors: 4,
    hostile.malformed: 8,
    hostile.crowd_the_door: 1,
}
AMONG_USERS: dict[Behaviour, int] = {hostile.meddle: 6, hostile.spy: 6}
_KILL_EVERY_SECONDS = 2.5
# From these shares of the time on: one and the same front bears it all; nobody is killed any more,
# so that workers, too, live long enough to show whether they grow.
_ONE_FRONT, _TRUCE = 0.4, 0.75
# Each worker has met each kind of audio before what it holds is measured.
_WARM_UP = 12


class Campaign:
    """`run` it, then look at the ledger that it returns and at the figures."""

    def __init__(self, host: Host, seed: int, clients: int) -> None:
        self._host = host
        self._seed = seed
        self._clients = clients
        self.figures: list[tuple[str, str]] = []

    def run(self, model: Path, seconds: float) -> Ledger:
        host, seed = self._host, self._seed
        known = clips.known(model, random.Random(f"{seed} clips"))
        ledger = Ledger(host.title, seed, host.log, LIMITS)
        with ledger.told_of_failures(), host:
            self._run(ledger, known, seconds)
        with open(host.log, errors="replace") as log:
            ledger.settle(deaths.casualties(log))
        with open(host.log, errors="replace") as log:
            found = deaths.count(log)
        problems = deaths.unexplained(found, ledger)
        if host.quiet_user is not None:
            with open(host.log, errors="replace") as log:
                turns = fairness.turns(log)
            problems += fairness.unfair(turns, host.quiet_user, 1 + len(host.workers))
            mine = [turn for turn in turns if turn.uid == host.quiet_user]
            waits = sorted(turn.started - turn.arrived for turn in mine) or [0.0]
            self.figures.append(("the quiet user's jobs", str(len(mine))))
            self.figures.append(("the quiet user's longest wait", f"{waits[-1]:.1f} s"))
        for problem in problems:
            ledger.fail(problem)
        self.figures += [(what, str(number)) for what, number in sorted(found.items())]
        return ledger

    def _run(self, ledger: Ledger, known: list[clips.Clip], seconds: float) -> None:
        host, users = self._host, self._host.users

        def context(chance: random.Random, number: int = 0) -> Context:
            uid = users[number % len(users)] if users else None
            return Context(chance, ledger, known, host.socket, uid)

        def quiet(chance: random.Random, number: int) -> Context:
            return Context(chance, ledger, known, host.socket, host.quiet_user)

        first = self._warm(Context(random.Random(self._seed), ledger, known, host.socket))
        watch = Watch(ledger, host)
        killer = Killer(ledger, random.Random(f"{self._seed} faults"), host, _KILL_EVERY_SECONDS)
        behaviours = {**BEHAVIOURS, **(AMONG_USERS if users else {})}
        crowds = [Crowd(context, str(self._seed), self._clients, behaviours)]
        if host.quiet_user is not None:
            crowds.append(Crowd(quiet, f"{self._seed} quiet", 1, {one_at_a_time: 1}))
        with in_background(watch.run):
            with in_background(killer.run):
                stop = threading.Event()
                for crowd in crowds:
                    crowd.start(stop)
                stop.wait(_ONE_FRONT * seconds)
                killer.spare_front.set()
                stop.wait((_TRUCE - _ONE_FRONT) * seconds)
                killer.truce.set()
                crowds[0].withheld.add(poison)
                stop.wait((1 - _TRUCE) * seconds)
                stop.set()
                for crowd in crowds:
                    crowd.join()
        last = self._warm(Context(random.Random(self._seed), ledger, known, host.socket))
        for problem in first.growth(last) + watch.growth():
            ledger.fail(problem)
        self._tell(first, last, watch)

    def _warm(self, context: Context) -> Snapshot:
        """Both workers have worked before anything is measured; after all, they must still."""
        for _ in range(_WARM_UP):
            one_shot(context)
        return self._at_rest()

    def _at_rest(self) -> Snapshot:
        host = self._host

        def quiet() -> bool:
            told = status(host.socket)
            states = [worker["state"] for worker in told["workers"]]
            return told["connections"] == 1 and states == ["ready"] * len(host.workers)

        wait_for("the daemon to come to rest", quiet, LIMITS.wait + LIMITS.run)
        return Snapshot.take(host)

    def _tell(self, first: Snapshot, last: Snapshot, watch: Watch) -> None:
        for name, was in first.holdings.items():
            self.figures.append((f"{name}, first", str(was)))
            self.figures.append((f"{name}, last", str(last.holdings[name])))
        for name, trend in sorted(watch.longest.items()):
            self.figures.append((f"{name}, at work", str(trend)))
        self.figures.append(("front, peak", f"{watch.front_peak_kib / 1024:.1f} MiB"))
        self.figures.append(("fronts", str(watch.fronts)))
        told = status(self._host.socket)
        self.figures.append(("the last front's jobs", json.dumps(told["jobs"])))


def crashing_model(parent: Path) -> Path:
    """The demo model with alignment heads that do not exist: CTranslate2 really segfaults when
    word timestamps are asked for."""
    model = parent / "crashing-model"
    shutil.copytree(MODEL, model)
    settings = json.loads((model / "config.json").read_text())
    settings["alignment_heads"] = [[1, 400_000]]
    (model / "config.json").write_text(json.dumps(settings))
    return model
