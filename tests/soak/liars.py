"""The second campaign: `asrd serve` between a crowd of clients and workers most of which lie."""

import random
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.soak import hostile, libraries
from tests.soak.clips import Clip
from tests.soak.crowd import Behaviour, Crowd, in_background
from tests.soak.honest import Context, cancelled, hurried, one_shot, stream_by_hand
from tests.soak.impostors import Impostor, heard
from tests.soak.ledger import Ledger
from tests.soak.oracle import Limits
from tests.soak.resources import Holding
from tests.soak.standalone import no_room
from tests.support.daemons import Front
from tests.support.raw import wait_for

# By name: how many jobs a worker does well between two tricks.
WORKERS = {"honest": None, "liar": 5, "fraud": 2}
LIMITS = Limits(wait=20, run=10, slow_death=10, frame=5, quick_death=5)
CONFIG = f"""
queue_max = 8
max_wait_seconds = {LIMITS.wait}
max_run_seconds = {LIMITS.run}
frame_timeout_seconds = {LIMITS.frame}
output_max_bytes = 1048576
"""
BEHAVIOURS: dict[Behaviour, int] = {
    one_shot: 20,
    stream_by_hand: 6,
    libraries.wyoming_package: 4,
    libraries.blocking: 6,
    libraries.asyncio_: 4,
    libraries.trio: 4,
    cancelled: 8,
    hurried: 6,
    hostile.byte_by_byte: 2,
    hostile.hang_up: 6,
    hostile.stall: 1,
    hostile.flood_descriptors: 2,
    hostile.malformed: 4,
}
_SLACK_KIB = 24 * 1024
_FULL_EVERY_SECONDS = 10.0


class Liars:
    """Of the campaign: `run` it, then look at `ledger` and the figures."""

    def __init__(self, tmp: Path, seed: int, clients: int) -> None:
        self._tmp = tmp
        self._seed = seed
        self._clients = clients
        self.figures: list[tuple[str, str]] = []

    def run(self, seconds: float) -> Ledger:
        known = _clips(self._tmp, random.Random(f"{self._seed} clips"))
        home = self._tmp / "liars"
        home.mkdir()
        front = Front(home, *WORKERS, config=CONFIG)
        ledger = Ledger("liars", self._seed, home / "log", LIMITS)
        with ledger.told_of_failures(), front:
            with ExitStack() as cast:
                in_hand: set[int] = set()
                impostors = []
                for name, honesty in WORKERS.items():
                    chance = random.Random(f"{self._seed} {name}")
                    listener = front.listeners[name]
                    impostor = Impostor(name, listener, ledger, chance, honesty, in_hand)
                    impostors.append(impostor)
                    cast.enter_context(in_background(impostor.run))
                self._campaign(front, ledger, known, seconds)
        casualties: Counter[str] = Counter()
        for impostor in impostors:
            casualties += impostor.casualties
        ledger.settle(casualties)
        return ledger

    def _campaign(self, front: Front, ledger: Ledger, known: list[Clip], seconds: float) -> None:
        def context(chance: random.Random, number: int = 0) -> Context:
            return Context(chance, ledger, known, front.socket)

        front.wait_for_state("ready", name="honest")
        one_shot(context(random.Random(self._seed)))
        first = _holding(front)
        crowd = Crowd(context, f"{self._seed} liars", self._clients, BEHAVIOURS)
        stop = threading.Event()
        crowd.start(stop)
        self._fill_now_and_then(front, ledger, stop, seconds)
        stop.set()
        crowd.join()
        one_shot(context(random.Random(self._seed)))
        wait_for("the clients to be forgotten", lambda: front.status()["connections"] == 1)
        last = _holding(front)
        self.figures = [("front, first", str(first)), ("front, last", str(last))]
        grown = last.descriptors - first.descriptors - len(WORKERS)
        if grown > 0 or last.threads > first.threads or last.rss_kib > first.rss_kib + _SLACK_KIB:
            ledger.fail(f"the front grew: {first}, then {last}")

    def _fill_now_and_then(
        self, front: Front, ledger: Ledger, stop: threading.Event, seconds: float
    ) -> None:
        """For as long as the campaign lasts."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            stop.wait(min(left, _FULL_EVERY_SECONDS))
            with ledger.lasting_fault("no space left", "disk"), no_room(front.process.pid):
                stop.wait(1)


def _holding(front: Front) -> Holding:
    return Holding.of(Path(f"/proc/{front.process.pid}"))


def _clips(tmp: Path, chance: random.Random) -> list[Clip]:
    """Noise, two long ones first: the workers that are played hear each bit of it."""
    clips = []
    for number, size in enumerate(
        [200_000, 300_000, *(chance.randint(1, 20_000) for _ in range(20))]
    ):
        pcm, file = chance.randbytes(2 * size), chance.randbytes(size)
        path = tmp / f"noise-{number}"
        path.write_bytes(file)
        clips.append(Clip(path, "en", pcm, heard(pcm), heard(file)))
    return clips
