"""The main campaign: `asrd run` with two real workers, the real engine, and everything at once."""

import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from asrd.demo import MODEL
from tests.process.daemons import Daemon
from tests.process.raw import wait_for
from tests.soak import clips, deaths, hostile, libraries
from tests.soak.crowd import Behaviour, Crowd
from tests.soak.faults import Killer
from tests.soak.honest import Context, cancelled, hurried, one_shot, poison, stream_by_hand
from tests.soak.ledger import Ledger
from tests.soak.oracle import Limits
from tests.soak.resources import Snapshot, Watch

WORKERS = ("0", "1")
_WATCHDOG_SECONDS = 5
# A process that is stopped while it starts.
_START_SECONDS = 12
LIMITS = Limits(wait=20, run=30, slow_death=_START_SECONDS + 4, frame=5)
CONFIG = f"""
[front]
queue_max = 8
max_wait_seconds = {LIMITS.wait}
max_run_seconds = {LIMITS.run}
frame_timeout_seconds = {LIMITS.frame}
output_max_bytes = 1048576
[worker]
check_model = false
cpu_threads = 1
beam_size = {clips.BEAM_SIZE}
stall_seconds = 5
cancel_grace_seconds = 1
"""
BEHAVIOURS: dict[Behaviour, int] = {
    one_shot: 20,
    stream_by_hand: 8,
    libraries.wyoming_package: 8,
    libraries.blocking: 10,
    libraries.asyncio_: 6,
    libraries.trio: 6,
    cancelled: 8,
    hurried: 5,
    poison: 1,
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
_KILL_EVERY_SECONDS = 2.5
# Interpreter, arenas and allocator settle within this; a leak of one job's audio would not.
_SLACK_KIB = 24 * 1024
# Each worker has met each kind of audio before what it holds is measured.
_WARM_UP = 12


class Standalone:
    """Of the campaign: `run` it, then look at `ledger` and the figures."""

    def __init__(self, tmp: Path, seed: int, clients: int) -> None:
        self._tmp = tmp
        self._seed = seed
        self._clients = clients
        self.figures: list[tuple[str, str]] = []

    def run(self, seconds: float) -> Ledger:
        model = crashing_model(self._tmp)
        known = clips.known(model, random.Random(f"{self._seed} clips"))
        home = self._tmp / "standalone"
        home.mkdir()
        config = f"{CONFIG}model = '{model}'\n"
        watchdog, start = str(_WATCHDOG_SECONDS), str(_START_SECONDS)
        patience = ["--watchdog", watchdog, "--start-timeout", start]
        daemon = Daemon(home, "--workers", "2", *patience, config=config)
        ledger = Ledger("standalone", self._seed, home / "log", LIMITS)
        with ledger.told_of_failures(), daemon:
            daemon.wait_until_ready(*WORKERS)
            self._campaign(daemon, ledger, known, seconds)
        ledger.casualties = deaths.casualties(daemon.log)
        ledger.settle()
        left = sorted(path.name for path in home.iterdir())
        if left != ["asrd.toml", "log"]:
            ledger.fail(f"left behind: {left}")
        found = deaths.count(daemon.log)
        for problem in deaths.unexplained(found, ledger):
            ledger.fail(problem)
        self.figures += [(what, str(number)) for what, number in sorted(found.items())]
        return ledger

    def _campaign(
        self, daemon: Daemon, ledger: Ledger, known: list[clips.Clip], seconds: float
    ) -> None:
        supervisor = daemon.process.pid

        def context(chance: random.Random) -> Context:
            return Context(chance, ledger, known, daemon.socket)

        first = self._warm(daemon, context(random.Random(self._seed)))
        watch = Watch(ledger, daemon.socket, supervisor, 1 + len(WORKERS))
        chance = random.Random(f"{self._seed} faults")
        killer = Killer(ledger, chance, daemon, _KILL_EVERY_SECONDS)
        crowd = Crowd(context, str(self._seed), self._clients, BEHAVIOURS)
        with in_background(watch.run):
            with in_background(killer.run):
                stop = threading.Event()
                crowd.start(stop)
                stop.wait(seconds / 2)
                # From here on one and the same front must bear it all.
                killer.spare_front.set()
                stop.wait(seconds / 2)
                stop.set()
                crowd.join()
        last = self._warm(daemon, context(random.Random(self._seed)))
        for problem in first.growth(last, _SLACK_KIB):
            ledger.fail(problem)
        self._tell(first, last, watch, daemon)

    def _warm(self, daemon: Daemon, context: Context) -> Snapshot:
        """Both workers have worked before anything is measured; after all, they must still."""
        for _ in range(_WARM_UP):
            one_shot(context)
        return self._at_rest(daemon)

    def _at_rest(self, daemon: Daemon) -> Snapshot:
        def quiet() -> bool:
            told = daemon.status()
            states = [worker["state"] for worker in told["workers"]]
            return told["connections"] == 1 and states == ["ready"] * len(WORKERS)

        wait_for("the daemon to come to rest", quiet, LIMITS.wait + LIMITS.run)
        return Snapshot.take(daemon.socket, daemon.process.pid)

    def _tell(self, first: Snapshot, last: Snapshot, watch: Watch, daemon: Daemon) -> None:
        for name, was in first.holdings.items():
            self.figures.append((f"{name}, first", str(was)))
            self.figures.append((f"{name}, last", str(last.holdings[name])))
        peak = f"{watch.front_peak_kib / 1024:.1f} MiB"
        self.figures.append(("front, peak", peak))
        self.figures.append(("fronts", str(len(watch.fronts))))
        told = daemon.status()
        self.figures.append(("the last front's jobs", json.dumps(told["jobs"])))


def crashing_model(tmp: Path) -> Path:
    """The demo model with alignment heads that do not exist: CTranslate2 really segfaults when
    word timestamps are asked for."""
    model = tmp / "crashing-model"
    shutil.copytree(MODEL, model)
    settings = json.loads((model / "config.json").read_text())
    settings["alignment_heads"] = [[1, 400_000]]
    (model / "config.json").write_text(json.dumps(settings))
    return model


@contextmanager
def in_background(run: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
