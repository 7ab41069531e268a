"""The scheduler under every history: random long ones, and all short ones.

tests/support/scheduler_world.py says what must hold, and checks it after each event.
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from asrd.front.scheduling.job import Needs
from asrd.settings import FrontSettings
from tests.support.scheduler_world import BookedSkills, World

NAMES = ("0", "1", "2")
MODELS = ("a", "b", "/x/a", "/y/A")
SKILLS = (
    None,
    BookedSkills(("en",), translate=False),
    BookedSkills(("en", "de")),
    BookedSkills(("en", "fr"), words=False),
)
NEEDS = (
    *(Needs(), Needs("a"), Needs("A"), Needs("/x/a"), Needs("b")),
    *(Needs(language="en"), Needs(language="de"), Needs("a", "fr")),
    *(Needs(translate=True), Needs(word_timestamps=True), Needs("a", "de", True, True)),
)


class SchedulerHistory(RuleBasedStateMachine):
    world: World

    @initialize(
        queue_max=st.integers(0, 6),
        per_user=st.integers(0, 2),
        max_bytes=st.sampled_from([5, 1000]),
        max_seconds=st.sampled_from([5.0, 1000.0]),
        attempts=st.integers(1, 3),
        workers=st.lists(st.tuples(st.sampled_from(MODELS), st.sampled_from(SKILLS)), max_size=3),
    )
    def begin(
        self,
        queue_max: int,
        per_user: int,
        max_bytes: int,
        max_seconds: float,
        attempts: int,
        workers: list[tuple[str, BookedSkills | None]],
    ) -> None:
        limits = FrontSettings(
            queue_max=queue_max,
            queue_max_per_user=per_user,
            queue_max_bytes=max_bytes,
            queue_max_audio_seconds=max_seconds,
            max_run_seconds=60.0,
            max_attempts=attempts,
        )
        self.world = World(limits)
        self.world.add("0")
        for name, (model, skills) in zip(NAMES, workers, strict=False):
            self.world.add(name)
            self.world.ready(name, model, skills=skills)

    # --- what may be chosen -------------------------------------------------------------------

    def _some_worker(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.world.workers)))

    def _some_key(self, data: st.DataObject) -> tuple[str, int]:
        return data.draw(st.sampled_from(self._keys()))

    def _keys(self) -> list[tuple[str, int]]:
        return [(n, key) for n, w in sorted(self.world.workers.items()) for key in w.held]

    # --- events -------------------------------------------------------------------------------

    @rule(
        uid=st.integers(1, 3),
        needs=st.sampled_from(NEEDS),
        timeout=st.sampled_from([None, 1.0, 45.0]),
        size=st.integers(1, 4),
        seconds=st.sampled_from([0.0, 0.1, 3.3]),
    )
    def submit(
        self, uid: int, needs: Needs, timeout: float | None, size: int, seconds: float
    ) -> None:
        self.world.submit(uid, needs, timeout, size, seconds)

    @rule(uid=st.integers(1, 2), count=st.integers(2, 5), size=st.integers(1, 4))
    def burst(self, uid: int, count: int, size: int) -> None:
        """What reaches the bounds."""
        for _ in range(count):
            self.world.submit(uid, Needs(), None, size, 1.5 * size)

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.world.end(data.draw(st.sampled_from(sorted(self.world.jobs))))

    @rule(seconds=st.sampled_from([0.1, 0.9, 29.0, 61.0]), tick=st.booleans())
    def time_passes(self, seconds: float, tick: bool) -> None:
        self.world.now += seconds
        if tick:
            self.world.tick()

    @rule(name=st.sampled_from(NAMES))
    def add(self, name: str) -> None:
        self.world.add(name)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), how=st.sampled_from(["retire", "remove", "lost"]))
    def worker_event(self, data: st.DataObject, how: str) -> None:
        getattr(self.world, how)(self._some_worker(data))

    @precondition(lambda self: self.world.workers)
    @rule(
        data=st.data(),
        model=st.sampled_from(MODELS),
        spare=st.booleans(),
        skills=st.sampled_from(SKILLS),
    )
    def ready(self, data: st.DataObject, **said: Any) -> None:
        self.world.ready(self._some_worker(data), **said)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), model=st.sampled_from(MODELS), skills=st.sampled_from(SKILLS))
    def loading(self, data: st.DataObject, model: str, skills: BookedSkills | None) -> None:
        self.world.loading(self._some_worker(data), model, skills)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), asleep=st.booleans())
    def left(self, data: st.DataObject, asleep: bool) -> None:
        self.world.left(self._some_worker(data), asleep)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), down=st.booleans())
    def failed(self, data: st.DataObject, down: bool) -> None:
        self.world.failed(self._some_worker(data), down)

    @precondition(lambda self: self._keys())
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        self.world.done(*self._some_key(data))

    @precondition(lambda self: self._keys())
    @rule(data=st.data(), fatal=st.booleans())
    def job_failed(self, data: st.DataObject, fatal: bool) -> None:
        self.world.job_failed(*self._some_key(data), fatal)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), key=st.integers(0, 50))
    def breach(self, data: st.DataObject, key: int) -> None:
        name = self._some_worker(data)
        if key not in self.world.workers[name].held:
            self.world.breach(name, key)

    @precondition(lambda self: len(self.world.jobs) > 5)
    @rule()
    def drain(self) -> None:
        self.world.drain()

    def teardown(self) -> None:
        """However a history ends, the last worker to go leaves nothing behind."""
        for name in list(self.world.workers):
            self.world.remove(name)
        self.world.check_all_answered()


TestSchedulerHistory = SchedulerHistory.TestCase
TestSchedulerHistory.settings = settings(
    max_examples=100, stateful_step_count=50, report_multiple_bugs=False
)


# --- all histories of two workers and three jobs ----------------------------------------------

Step = Callable[[World], object]


@dataclass(frozen=True)
class Cast:
    """Who takes part: the jobs in their order, and what each worker is once it is ready."""

    jobs: tuple[tuple[Any, ...], ...] = ((1,), (1, Needs(), 100.0), (2,))
    workers: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    # Whether a worker tells what its model can do before it has loaded it.
    announces: bool = False


CASTS = {
    "alike": Cast(),
    "a spare": Cast(workers=({}, {"spare": True})),
    "mixed": Cast(
        ((1, Needs(language="de")), (2,), (1, Needs(language="en"), 100.0)),
        ({"skills": SKILLS[1]}, {"skills": SKILLS[2]}),
        announces=True,
    ),
}


def steps(world: World, cast: Cast) -> Iterator[Step]:
    """Everything that can happen next."""
    if world._submitted < len(cast.jobs):
        yield lambda w: w.submit(*cast.jobs[w._submitted])
    for number, booked in world.jobs.items():
        if booked.state != "ended":
            yield partial(World.end, number=number)
    if world.scheduler.next_deadline() < 1e9:
        yield _until_the_next_deadline
    for name, worker in world.workers.items():
        yield partial(World.ready, name=name, **cast.workers[int(name)])
        if cast.announces and worker.skills is None:
            yield partial(World.loading, name=name, model="a", **cast.workers[int(name)])
        for event in ("lost", "failed", "retire"):
            yield partial(getattr(World, event), name=name)
        yield partial(World.left, name=name, asleep=True)
        yield partial(World.left, name=name, asleep=False)
        for key in worker.held:
            yield partial(World.done, name=name, key=key)
            yield partial(World.job_failed, name=name, key=key, fatal=True)


def _until_the_next_deadline(world: World) -> None:
    world.now = world.scheduler.next_deadline()
    world.tick()


def situation(world: World) -> object:
    """What tells two worlds apart: numbers that only grow, by their order alone."""
    now = world.now
    keys = {key: rank for rank, key in enumerate(sorted(world.keys))}
    jobs = tuple(
        (
            *(n, b.state, b.attempts, b.deadline - now),
            b.where and (b.where[0], keys[b.where[1]]),
        )
        for n, b in world.jobs.items()
        if b.state != "ended"
    )
    workers = tuple(
        (
            *(name, w.state, w.retired, tuple(w.held.values()), w.model, w.skills),
            world.scheduler.workers[name].woken,
        )
        for name, w in world.workers.items()
    )
    queue = tuple(job.request for job in world.scheduler.queue)
    turns = tuple(sorted(world.served, key=world.served.__getitem__))
    return world._submitted, jobs, workers, queue, turns


def search(depth: int, cast: Cast) -> tuple[int, int]:
    """Walk all histories of so many events; returns how many there are, and how many situations
    they lead to. Histories that meet in one situation go on as one."""
    world = World(FrontSettings(queue_max=2, max_wait_seconds=30.0, max_run_seconds=60.0))
    world.add("0")
    world.add("1")
    level = {situation(world): (pickle.dumps(world), 1)}
    situations = 1
    for _ in range(depth):
        following: dict[object, tuple[bytes, int]] = {}
        for saved, ways in level.values():
            for step in steps(pickle.loads(saved), cast):
                after = pickle.loads(saved)
                step(after)
                found = situation(after)
                kept, before = following.get(found, (b"", 0))
                following[found] = kept or pickle.dumps(after), before + ways
        level = following
        situations += len(level)
    for saved, _ in level.values():
        _end_all(pickle.loads(saved))
    return sum(ways for _, ways in level.values()), situations


def _end_all(world: World) -> None:
    for name in list(world.workers):
        world.remove(name)
    world.check_all_answered()


@pytest.mark.parametrize("cast", CASTS)
def test_all_short_histories(cast: str) -> None:
    histories, situations = search(7, CASTS[cast])
    print(f"{histories} histories, {situations} situations")
    assert histories > 50_000_000
