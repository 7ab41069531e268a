"""The campaign of lying workers: `asrd serve` between a crowd and workers most of which lie."""

import random
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.soak import host as hosts
from tests.soak import hostile, libraries
from tests.soak.clips import Clip, Clips
from tests.soak.crowd import Behaviour, Crowd
from tests.soak.honest import Context, cancelled, hurried, one_shot, stream_by_hand
from tests.soak.impostors import Casualties, Impostor
from tests.soak.ledger import Ledger
from tests.soak.resources import AT_REST, Holding
from tests.soak.standalone import no_room
from tests.support.daemons import Front
from tests.support.played import heard, in_background
from tests.support.raw import wait_for

# By name: the number of jobs that a worker does well between two tricks, and its slots.
WORKERS = {"honest": (None, 4), "liar": (5, 4), "fraud": (2, 1)}
LIMITS = replace(hosts.LIMITS, slow_death=10, quick_death=5)
CONFIG = f"frame_timeout_seconds = {LIMITS.frame}"
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
# The front may have a connection to each worker more than at the first measurement.
_SLACK = AT_REST._replace(descriptors=len(WORKERS))
_FULL_EVERY_SECONDS = 10.0


def run(tmp: Path, seed: int, clients: int, seconds: float) -> Ledger:
    """Runs the campaign with its files in `tmp`."""
    known = _clips(tmp, random.Random(f"{seed} clips"))
    home = tmp / "liars"
    home.mkdir()
    front = Front(home, *WORKERS, config=CONFIG)
    ledger = Ledger("liars", seed, home / "log", LIMITS)
    in_hand: set[int] = set()
    casualties: Casualties = defaultdict(list)
    impostors = [
        Impostor(
            name,
            front.listeners[name],
            ledger,
            random.Random(f"{seed} {name}"),
            honesty,
            in_hand,
            casualties,
            slots,
        )
        for name, (honesty, slots) in WORKERS.items()
    ]
    with ledger.records_assertions(), front, ExitStack() as threads:
        for impostor in impostors:
            threads.enter_context(in_background(impostor.run))
        _play(front, ledger, known, clients, seconds)
    ledger.settle(casualties)
    return ledger


def _play(front: Front, ledger: Ledger, known: Clips, clients: int, seconds: float) -> None:
    def context(chance: random.Random, number: int = 0) -> Context:
        return Context(chance, ledger, known, front.socket)

    front.wait_for_state("ready", name="honest")
    one_shot(context(random.Random(ledger.seed)))
    first = _holding(front)
    crowd = Crowd(context, f"{ledger.seed} liars", clients, BEHAVIOURS)
    stop = threading.Event()
    crowd.start(stop)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        stop.wait(min(left, _FULL_EVERY_SECONDS))
        with ledger.lasting_fault("no space left", "disk"), no_room(front.process.pid):
            stop.wait(1)
    stop.set()
    crowd.join()
    one_shot(context(random.Random(ledger.seed)))
    wait_for("the end of all connections", lambda: front.status()["connections"] == 1)
    last = _holding(front)
    ledger.figures += [("front, first", str(first)), ("front, last", str(last))]
    if last.since(first).exceeds(_SLACK):
        ledger.fail(f"the front grew: {first}, then {last}")


def _holding(front: Front) -> Holding:
    return Holding.of(Path(f"/proc/{front.process.pid}"))


def _clips(tmp: Path, chance: random.Random) -> Clips:
    """Noise, of which every bit changes the transcript."""
    clips = []
    for number, size in enumerate(
        [200_000, 300_000, *(chance.randint(1, 20_000) for _ in range(20))]
    ):
        pcm, file = chance.randbytes(2 * size), chance.randbytes(size)
        path = tmp / f"noise-{number}"
        path.write_bytes(file)
        clips.append(Clip(path, pcm, heard(pcm), heard(file), {"language": "en"}))
    return Clips(clips[2:], clips[:2])
