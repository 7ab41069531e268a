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
from asrd.front.scheduling.workers import UNKNOWN, Skills
from asrd.settings import FrontSettings
from tests.support.scheduler_world import World

NAMES = ("0", "1", "2")
SLOTS = {"0": 2, "1": 3, "2": 1}
MODELS = ("a", "b", "/x/a", "/y/A")
ENGLISH = Skills(frozenset({"en"}), translate=False)
GERMAN = Skills(frozenset({"en", "de"}))
FRENCH = Skills(frozenset({"en", "fr"}), word_timestamps=False)
SKILLS = (UNKNOWN, ENGLISH, GERMAN, FRENCH)
NEEDS = (
    *(Needs(), Needs("a"), Needs("A"), Needs("/x/a"), Needs("b")),
    *(Needs(language="en"), Needs(language="de"), Needs("a", "fr")),
    *(Needs(translate=True), Needs(word_timestamps=True), Needs("a", "de", True, True)),
)
LONGEST = (0.0, 0.0, 20.0, 100.0)
# Short and long recordings, and files of unknown length, small and large.
AUDIO = ((1, 0.1), (4, 3.3), (4, 90.0), (4, 600.0), (3, 0.0), (2**23, 0.0))


class SchedulerHistory(RuleBasedStateMachine):
    world: World

    @initialize(
        queue_max=st.integers(0, 6),
        queue_max_per_user=st.integers(0, 2),
        queue_max_bytes=st.sampled_from([5, 1000, 2**30]),
        queue_max_audio_seconds=st.sampled_from([5.0, 1000.0]),
        jobs_running_max_per_user=st.sampled_from([0, 0, 1, 2]),
        max_attempts=st.integers(1, 3),
        default_model=st.sampled_from(["", "", "a", "b"]),
        workers=st.lists(
            st.tuples(st.sampled_from(MODELS), st.sampled_from(SKILLS), st.sampled_from(LONGEST)),
            max_size=3,
        ),
    )
    def begin(self, workers: list[tuple[str, Skills, float]], **limits: Any) -> None:
        limits |= {"max_wait_seconds": 30.0, "max_run_seconds": 60.0, "max_load_seconds": 100.0}
        self.world = World(FrontSettings(**limits))
        self.world.add("0")
        for name, (model, skills, longest) in zip(NAMES, workers, strict=False):
            self.world.add(name)
            self.world.ready(name, model, False, skills, SLOTS[name], longest)

    # --- choices ------------------------------------------------------------------------------

    def _some_worker(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.world.workers)))

    def _keys(self) -> list[tuple[str, int]]:
        return [(name, key) for name, w in sorted(self.world.workers.items()) for key in w.jobs]

    def _some_key(self, data: st.DataObject) -> tuple[str, int]:
        return data.draw(st.sampled_from(self._keys()))

    # --- events -------------------------------------------------------------------------------

    @rule(
        uid=st.integers(1, 3),
        needs=st.sampled_from(NEEDS),
        timeout=st.sampled_from([None, 1.0, 45.0, 400.0]),
        audio=st.sampled_from(AUDIO),
    )
    def submit(
        self, uid: int, needs: Needs, timeout: float | None, audio: tuple[int, float]
    ) -> None:
        self.world.submit(uid, needs, timeout, *audio)

    @rule(uid=st.integers(1, 3), needs=st.sampled_from(NEEDS), seconds=st.sampled_from([0.5, 30.0]))
    def step(self, uid: int, needs: Needs, seconds: float) -> None:
        self.world.submit(uid, needs, None, 2**20, seconds, step=True)

    @rule(uid=st.integers(1, 2), count=st.integers(2, 5), audio=st.sampled_from(AUDIO))
    def burst(self, uid: int, count: int, audio: tuple[int, float]) -> None:
        """Reaches the limits."""
        for _ in range(count):
            self.world.submit(uid, Needs(), None, *audio)

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
    @rule(data=st.data(), event=st.sampled_from(["retire", "remove", "left", "failed"]))
    def worker_event(self, data: st.DataObject, event: str) -> None:
        # A worker that left is asleep, or one that failed is down.
        how = [data.draw(st.booleans())] if event in ("left", "failed") else []
        getattr(self.world, event)(self._some_worker(data), *how)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), stale=st.booleans())
    def lost(self, data: st.DataObject, stale: bool) -> None:
        """The turn word has the key of one of the worker's jobs, an old one, or none."""
        name = self._some_worker(data)
        keys = self.world.keys if stale else self.world.workers[name].jobs
        self.world.lost(name, data.draw(st.sampled_from([0, *sorted(keys)])))

    @precondition(lambda self: self.world.workers)
    @rule(
        data=st.data(),
        model=st.sampled_from(MODELS),
        spare=st.booleans(),
        skills=st.sampled_from(SKILLS),
        longest=st.sampled_from(LONGEST),
    )
    def ready(self, data: st.DataObject, **hello: Any) -> None:
        name = self._some_worker(data)
        self.world.ready(name, slots=SLOTS[name], **hello)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), model=st.sampled_from(MODELS), skills=st.sampled_from(SKILLS))
    def loading(self, data: st.DataObject, model: str, skills: Skills) -> None:
        self.world.loading(self._some_worker(data), model, skills if skills.languages else None)

    @precondition(lambda self: self._keys())
    @rule(
        data=st.data(),
        work=st.sampled_from([0.0, 0.5, 40.0, 6e5]),
        done=st.sampled_from([0.0, 31.0, 89.0, 6e5]),
        total=st.sampled_from([None, 0.0, 2.0, 90.0, 6e5]),
    )
    def report(self, data: st.DataObject, work: float, done: float, total: float | None) -> None:
        """A worker reports what it likes: it may lie."""
        self.world.report(*self._some_key(data), work, done, total)

    @precondition(lambda self: self._keys())
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 30.0, 60.0]))
    def moved(self, data: st.DataObject, seconds: float) -> None:
        self.world.moved(*self._some_key(data), seconds)

    @precondition(lambda self: self._keys())
    @rule(data=st.data(), how=st.sampled_from(["done", "failed", "fatal", "too large"]))
    def answer(self, data: st.DataObject, how: str) -> None:
        name, key = self._some_key(data)
        if how == "done":
            work, audio = data.draw(st.sampled_from([(0.0, 0.0), (0.4, 3.0), (50.0, 600.0)]))
            self.world.done(name, key, work, audio)
        elif how == "too large":
            self.world.too_large(name, key)
        else:
            self.world.job_failed(name, key, fatal=how == "fatal")

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), key=st.integers(0, 50))
    def breach(self, data: st.DataObject, key: int) -> None:
        name = self._some_worker(data)
        if key not in self.world.workers[name].jobs:
            self.world.breach(name, key)

    @precondition(lambda self: len(self.world.jobs) > 5)
    @rule()
    def drain(self) -> None:
        self.world.drain()

    def teardown(self) -> None:
        end_all(self.world)


TestSchedulerHistory = SchedulerHistory.TestCase
TestSchedulerHistory.settings = settings(
    max_examples=100, stateful_step_count=50, report_multiple_bugs=False
)


def end_all(world: World) -> None:
    """Every job ends, and no history leaves anything behind."""
    world.end_fairly()
    for name in list(world.workers):
        world.remove(name)
    world.check_all_answered()


# --- all histories of two workers and three jobs ----------------------------------------------

Step = Callable[[World], object]
SHORT, LONG, FILE = (1, 1.0), (1, 100.0), (1, 0.0)


@dataclass(frozen=True)
class Cast:
    """The jobs in their order, and what each worker reports once it is ready."""

    jobs: tuple[tuple[Any, ...], ...]
    workers: tuple[dict[str, Any], ...] = ({}, {})
    # True if a worker reports its model's skills before it has loaded it.
    announces: bool = False
    # The depth of the search, and the fewest histories that it finds.
    depth: int = 6
    histories: int = 5_000_000


CASTS = {
    "alike": Cast(((1,), (1, Needs(), 100.0), (2,))),
    "a spare": Cast(((1,), (1, Needs(), 100.0), (2,)), ({}, {"spare": True})),
    "mixed": Cast(
        ((1, Needs(language="de")), (2,), (1, Needs(language="en"), 100.0)),
        ({"skills": ENGLISH}, {"skills": GERMAN}),
        announces=True,
    ),
    "turns": Cast(
        tuple((uid, Needs(), None, *audio) for uid, audio in ((1, LONG), (1, FILE), (2, SHORT))),
        ({"slots": 2},),
        depth=8,
    ),
    "a lane": Cast(
        tuple((uid, Needs(), None, *audio) for uid, audio in ((1, FILE), (2, SHORT), (1, LONG))),
        ({"longest": 20.0}, {"slots": 2}),
    ),
}


def steps(world: World, cast: Cast) -> Iterator[Step]:
    """Everything that can happen next."""
    if world.submitted < len(cast.jobs):
        yield lambda w: w.submit(*cast.jobs[w.submitted])
    for number, booked in world.jobs.items():
        if booked.state != "ended":
            yield partial(World.end, number=number)
    if world.scheduler.next_deadline() < 1e9:
        yield _until_the_next_deadline
    for name, worker in world.workers.items():
        yield partial(World.ready, name=name, **cast.workers[int(name)])
        if cast.announces and worker.skills == UNKNOWN:
            yield partial(World.loading, name=name, model="a", **cast.workers[int(name)])
        for event in ("lost", "failed", "retire"):
            yield partial(getattr(World, event), name=name)
        yield partial(World.left, name=name, asleep=True)
        yield partial(World.left, name=name, asleep=False)
        for key in worker.jobs:
            yield from _steps_of_job(world, cast, name, key)


def _steps_of_job(world: World, cast: Cast, name: str, key: int) -> Iterator[Step]:
    worker = world.workers[name]
    yield partial(World.done, name=name, key=key)
    yield partial(World.job_failed, name=name, key=key, fatal=True)
    if worker.slots > 1:
        yield partial(World.lost, name=name, turn=key)
        yield partial(World.moved, name=name, key=key, seconds=30.0)
        yield partial(World.report, name=name, key=key, work=1.0, done=30.0, total=90.0)
    if worker.longest:
        yield partial(World.too_large, name=name, key=key)


def _until_the_next_deadline(world: World) -> None:
    world.now = world.scheduler.next_deadline()
    world.tick()


def situation(world: World) -> object:
    """The facts that distinguish two worlds. Numbers that only grow count by their order."""
    jobs = tuple(
        (
            *(
                n,
                b.state,
                b.attempts,
                b.deaths,
                b.kept,
                b.done,
                b.job.seconds,
                b.where and b.where[0],
            ),
            world._deadline(b) - world.now,
            b.waits[-1:] and b.waits[-1][1],
        )
        for n, b in world.jobs.items()
        if b.state != "ended"
    )
    workers = tuple(
        (
            *(name, w.state, w.retired, tuple(w.jobs.values()), w.model, w.skills, w.failed_loads),
            world.scheduler.workers[name].woken,
        )
        for name, w in world.workers.items()
    )
    queue = tuple(job.request for job in world.scheduler.queue)
    turns = tuple(sorted(world.began, key=world._cost))
    return world.submitted, jobs, workers, queue, turns


def search(cast: Cast, depth: int) -> tuple[int, int]:
    """Walks all histories of `depth` events. Returns how many there are, and how many situations
    they lead to; histories that meet in one situation go on as one."""
    world = World(FrontSettings(queue_max=2, max_wait_seconds=30.0, max_run_seconds=60.0))
    for number in range(len(cast.workers)):
        world.add(str(number))
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
        end_all(pickle.loads(saved))
    return sum(ways for _, ways in level.values()), situations


@pytest.mark.parametrize("cast", CASTS)
def test_all_histories_without_the_last_two_events(cast: str) -> None:
    histories, _ = search(CASTS[cast], CASTS[cast].depth - 2)
    assert histories > 20_000, histories


# A minute and a half.
@pytest.mark.fuzz
@pytest.mark.parametrize("cast", CASTS)
def test_all_short_histories(cast: str) -> None:
    histories, situations = search(CASTS[cast], CASTS[cast].depth)
    print(f"{histories} histories, {situations} situations")
    assert histories > CASTS[cast].histories
