"""The main campaign: real workers, the real engine and all faults at once, on either host."""

import json
import random
import threading
from dataclasses import dataclass, replace

from tests.soak import deaths, fairness, hostile, libraries
from tests.soak.clips import Clips, heard_by
from tests.soak.crowd import Behaviour, Crowd
from tests.soak.honest import (
    Context,
    cancelled,
    hog,
    hurried,
    one_at_a_time,
    one_shot,
    poison,
    stream_by_hand,
)
from tests.soak.host import Host
from tests.soak.killer import Killer
from tests.soak.ledger import Ledger
from tests.soak.oracle import Limits
from tests.soak.resources import Snapshot, Watch
from tests.support.played import in_background
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
    poison: 3,
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
# After these shares of the time no fault hits the front, then none hits a worker either: each must
# live long enough to show a leak.
_ONE_FRONT, _TRUCE = 0.4, 0.75
# The share of the time that comes before the first measurement: each worker needs memory for each
# kind of audio.
_WARM_UP = 0.1


@dataclass(frozen=True)
class Plan:
    """The recordings, the crowd's size, the time for all, the mean time between two faults, and the
    limits of what is right; in seconds."""

    clips: Clips
    clients: int
    seconds: float
    faults_every: float
    limits: Limits


def run(host: Host, seed: int, plan: Plan) -> Ledger:
    """Runs a campaign on `host`, whose model must be that of the plan's recordings."""
    ledger = Ledger(host.title, seed, host.log, plan.limits)
    with ledger.records_assertions(), host:
        if host.foreign:
            plan = replace(plan, clips=heard_by(host.socket, plan.clips))
        _play(host, ledger, plan)
    log = host.log.read_text(errors="replace").splitlines()
    ledger.settle(deaths.casualties(deaths.losses(log)))
    found = deaths.count(log)
    for problem in deaths.unexplained(found, ledger) + _unfairness(host, ledger, log):
        ledger.fail(problem)
    ledger.figures += [(death, str(number)) for death, number in sorted(found.items())]
    return ledger


def _unfairness(host: Host, ledger: Ledger, log: list[str]) -> list[str]:
    if host.quiet_user is None:
        return []
    turns = fairness.turns(log, ledger.retried_ids)
    waits = [turn.started - turn.arrived for turn in turns if turn.uid == host.quiet_user]
    ledger.figures.append(("the quiet user's jobs", str(len(waits))))
    ledger.figures.append(("the quiet user's longest wait", f"{max(waits, default=0):.1f} s"))
    return fairness.unfair(turns, host.quiet_user, 1 + len(host.workers))


def _play(host: Host, ledger: Ledger, plan: Plan) -> None:
    seed, users, seconds, limits = ledger.seed, host.users, plan.seconds, plan.limits
    commands = [clip for clip in plan.clips.plain if clip.windows == 1]

    def context(chance: random.Random, number: int = 0) -> Context:
        uid = users[number % len(users)] if users else None
        return Context(chance, ledger, plan.clips, host.socket, uid)

    def quiet(chance: random.Random, number: int) -> Context:
        """A user of short commands."""
        return Context(chance, ledger, Clips(commands, commands), host.socket, host.quiet_user)

    def long(chance: random.Random, number: int) -> Context:
        return Context(chance, ledger, plan.clips, host.socket, host.hog)

    def measured() -> Snapshot:
        """The daemon at rest, after jobs of all sizes on both workers."""
        stop = threading.Event()
        crowd = Crowd(context, f"{seed} measured", 6, {hog: 1, one_shot: 1})
        crowd.start(stop)
        stop.wait(_WARM_UP * seconds)
        stop.set()
        crowd.join()
        wait_for("the daemon to come to rest", lambda: _at_rest(host), limits.wait + limits.stop)
        return Snapshot.take(host)

    first = measured()
    watch = Watch(ledger, host)
    killer = Killer(ledger, random.Random(f"{seed} faults"), host, plan.faults_every)
    behaviours = {**BEHAVIOURS, **(AMONG_USERS if users else {})}
    crowds = [
        Crowd(context, str(seed), plan.clients, behaviours),
        Crowd(long, f"{seed} long", 1, {hog: 1}),
    ]
    if host.quiet_user is not None:
        crowds.append(Crowd(quiet, f"{seed} quiet", 1, {one_at_a_time: 1}))
    with in_background(watch.run), in_background(killer.run):
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
    last = measured()
    for problem in first.growth(last) + watch.growth():
        ledger.fail(problem)
    ledger.figures += first.figures(last) + watch.figures()
    ledger.figures.append(("the last front's jobs", json.dumps(status(host.socket)["jobs"])))


def _at_rest(host: Host) -> bool:
    answer = status(host.socket)
    states = [worker["state"] for worker in answer["workers"]]
    return answer["connections"] == 1 and states == ["ready"] * len(host.workers)
