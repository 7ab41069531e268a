"""Many jobs of one client, which wait for each other: hours of a small daemon, on a clock of the
tests' own."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from asrd.client.attempts import BUSY_TIMEOUT_SECONDS, Attempts, JobOptions
from asrd.client.jobs import Jobs
from asrd.errors import AsrdError, Busy, DeadlineExceeded
from asrd.wire.client_events import Accepted, Progress, SegmentDecoded, Transcript
from asrd.wire.records import AudioFormat, Segment

AUDIO = AudioFormat("file")
HOUR = 3600.0
QUEUE_MAX, MAX_WAIT = 4, 30.0


class World:
    """A clock, a client, and its daemon: one worker and a short queue, whose jobs expire.

    `run` is how long a job runs, None if no job ever does; `retry_after` how long a refused one is
    asked to wait; the daemon accepts `queue_max` jobs that wait.
    """

    def __init__(
        self, run: float | None, retry_after: float = 1.0, queue_max: int = QUEUE_MAX
    ) -> None:
        self.now = 0.0
        self.jobs = Jobs()
        self.requests = 0
        self.jitter = random.Random(1).random
        self._run, self._retry_after, self._queue_max = run, retry_after, queue_max
        self._running: Caller | None = None
        self._queue: deque[Caller] = deque()
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = count()

    def after(self, seconds: float, do: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), do, args))

    def play(self) -> None:
        while self._events:
            assert next(self._numbers) < 200_000, "the jobs wait for each other without end"
            self.now, _, do, args = heapq.heappop(self._events)
            do(*args)

    def submit(self, caller: "Caller") -> None:
        self.requests += 1
        if self._run is not None and self._running is None:
            caller.take(Accepted("j"))
            self._start(caller)
        elif len(self._queue) < self._queue_max:
            self._queue.append(caller)
            caller.take(Accepted("j"))
            self.after(MAX_WAIT, self._expire, caller, caller.round)
        else:
            caller.fail(Busy("full", retry_after_ms=round(1000 * self._retry_after)))

    def _start(self, caller: "Caller") -> None:
        assert self._run is not None
        self._running = caller
        self.after(self._run, self._finish)

    def _finish(self) -> None:
        done, self._running = self._running, None
        assert done is not None
        if self._queue:
            self._start(self._queue.popleft())
        done.take(Transcript("done"))

    def _expire(self, caller: "Caller", round_: int) -> None:
        if caller in self._queue and caller.round == round_:
            self._queue.remove(caller)
            caller.fail(DeadlineExceeded("waited", phase="queue"))


class Caller:
    """One `transcribe` of the client."""

    def __init__(self, world: World, options: JobOptions | None = None) -> None:
        self.round = 0
        self.ended_at = 0.0
        self.outcome: Transcript | AsrdError | None = None
        self._world = world
        self._attempts = Attempts(
            options or {}, world.now, world.jobs, stream=False, jitter=world.jitter
        )
        self._attempts.wake_by(lambda: world.after(0.0, self._try, self.round))
        world.after(0.0, self._try, self.round)

    def _try(self, round_: int) -> None:
        if round_ == self.round and self.outcome is None:
            self.round += 1
            self._attempts.request(AUDIO, self._world.now)
            self._world.submit(self)

    def take(self, answer: Accepted | Transcript) -> None:
        self._attempts.take(answer, self._world.now)
        if isinstance(answer, Transcript):
            self._end(answer)

    def fail(self, error: AsrdError) -> None:
        try:
            self._attempts.failed(error, self._world.now)
        except AsrdError as raised:
            self._end(raised)
        else:
            self._world.after(self._attempts.pause, self._try, self.round)

    def _end(self, outcome: Transcript | AsrdError) -> None:
        self.outcome, self.ended_at = outcome, self._world.now
        self._attempts.end()


@pytest.mark.parametrize("queue_max", [0, QUEUE_MAX])
@pytest.mark.parametrize(
    ("run", "retry_after"), [(0.02, 1.0), (600.0, 60.0), (600.0, HOUR), (0.02, HOUR)]
)
def test_all_get_their_transcript_one_after_another(
    run: float, retry_after: float, queue_max: int
) -> None:
    world = World(run, retry_after, queue_max)
    many = 50
    callers = [Caller(world) for _ in range(many)]
    world.play()
    assert {type(caller.outcome) for caller in callers} == {Transcript}
    # The worker is never idle for long. A job asks again after each end of another one and after
    # each `retry_after`; when one expires, it asks, and one that waits after it.
    whole = max(caller.ended_at for caller in callers)
    assert whole < 1.1 * many * run + 1
    assert world.requests < 3 * many + whole * (many / retry_after + 2 * queue_max / MAX_WAIT)


@pytest.mark.parametrize("many", [1, 20])
@pytest.mark.parametrize("retry_after", [1.0, HOUR])
def test_daemon_that_runs_nothing_is_given_up(many: int, retry_after: float) -> None:
    """It accepts jobs and lets them expire, one while others still wait. None may wait for another
    that never runs either."""
    world = World(None, retry_after)
    callers = []
    for second in range(many):
        world.after(second, lambda: callers.append(Caller(world)))
    world.play()
    assert len(callers) == many
    assert {type(caller.outcome) for caller in callers} <= {Busy, DeadlineExceeded}
    assert max(caller.ended_at for caller in callers) < many * MAX_WAIT + BUSY_TIMEOUT_SECONDS


@pytest.mark.parametrize("retry_after", [1.0, HOUR])
def test_daemon_that_refuses_for_good_is_given_up(retry_after: float) -> None:
    world = World(None, retry_after, queue_max=0)
    callers = [Caller(world) for _ in range(20)]
    world.play()
    assert {type(caller.outcome) for caller in callers} == {Busy}
    assert max(caller.ended_at for caller in callers) <= BUSY_TIMEOUT_SECONDS


def test_job_with_a_timeout_waits_no_longer() -> None:
    world = World(600.0, retry_after=7.0, queue_max=0)
    first, second = Caller(world), Caller(world, {"timeout": 100.0})
    world.play()
    assert isinstance(first.outcome, Transcript)
    assert isinstance(second.outcome, Busy)
    assert 80.0 < second.ended_at < 100.0


def submitted(jobs: Jobs, now: float = 0.0) -> Attempts:
    attempts = Attempts({}, now, jobs, stream=False, jitter=lambda: 0.0)
    attempts.request(AUDIO, now)
    return attempts


@pytest.mark.parametrize(
    "sign",
    [
        SegmentDecoded("j", 0, Segment(0, 0.0, 1.0, "a")),
        Progress("j", 1.0),
        Transcript("a"),
    ],
)
def test_busy_timeout_counts_from_the_last_sign_of_progress(sign: Any) -> None:
    jobs = Jobs()
    other, refused = submitted(jobs), submitted(jobs)
    busy = Busy("full", retry_after_ms=1000)
    refused.failed(busy, 0.0)
    other.take(sign, HOUR)
    other.failed(DeadlineExceeded("waited", phase="queue"), HOUR)
    refused.failed(busy, HOUR + BUSY_TIMEOUT_SECONDS - 1.1)
    with pytest.raises(Busy):
        refused.failed(busy, HOUR + BUSY_TIMEOUT_SECONDS - 0.9)


def waiting(jobs: Jobs, woken: list[str], name: str) -> Attempts:
    attempts = submitted(jobs)
    attempts.wake_by(lambda: woken.append(name))
    attempts.failed(Busy("full", retry_after_ms=1000), 0.0)
    return attempts


def test_each_end_wakes_one_and_each_acceptance_of_one_that_waited_the_next() -> None:
    jobs, woken = Jobs(), list[str]()
    running = submitted(jobs)
    first, *_ = [waiting(jobs, woken, name) for name in "abc"]
    running.end()
    assert woken == ["a"]
    first.request(AUDIO, 1.0)
    first.take(Accepted("j"), 1.0)
    assert woken == ["a", "b"]
    newcomer = submitted(jobs)
    newcomer.take(Accepted("j"), 1.0)
    assert woken == ["a", "b"]
    newcomer.end()
    assert woken == ["a", "b", "c"]


def test_refusal_that_is_older_than_the_room_is_retried_at_once() -> None:
    """A job ends before the client has read that another one is refused because of it."""
    jobs, woken = Jobs(), list[str]()
    running, refused = submitted(jobs), submitted(jobs)
    refused.wake_by(lambda: woken.append("refused"))
    running.end()
    refused.failed(Busy("full", retry_after_ms=3_600_000), 0.0)
    assert woken == ["refused"]
    refused.request(AUDIO, 0.0)
    with pytest.raises(Busy):
        refused.failed(Busy("full", retry_after_ms=3_600_000), 0.0)


def test_job_that_ends_while_it_waits_is_not_woken() -> None:
    jobs, woken = Jobs(), list[str]()
    running = submitted(jobs)
    waiting(jobs, woken, "a").end()
    waiting(jobs, woken, "b").leave()
    running.end()
    assert woken == []
    assert repr(jobs) == "<Jobs in_flight=0 waiting=0>"
