"""A job's own books: the time of its turns, and when it has to end."""

from dataclasses import dataclass

import pytest

from asrd.wire.fds import OwnedFd
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Checkpoint
from asrd.wire.worker_events import JobState, StartJob
from asrd.worker import tasks
from asrd.worker.tasks import Cancelled, Suspended, Task

_NO_OPTIONS = Options()


@dataclass
class Clock:
    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tasks, "time", clock)
    return clock


def made(seconds: float, resume: Checkpoint | None = None, options: Options = _NO_OPTIONS) -> Task:
    size = int(32_000 * seconds)
    job = StartJob(7, "a", AudioFormat("pcm_s16le"), options, size, resume=resume)
    return Task(job, OwnedFd(-1))


def test_only_the_time_of_its_own_turns_is_work(clock: Clock) -> None:
    task = made(600, Checkpoint(6000, 60.0, 3))
    assert task.state(clock.now) == JobState(7, 0.0, 60.0, 600.0)
    task.begin_turn()
    clock.now += 2
    assert (task.turn_seconds(clock.now), task.state(clock.now).work_seconds) == (2.0, 2.0)
    task.end_turn()
    clock.now += 100
    assert (task.turn_seconds(clock.now), task.state(clock.now).work_seconds) == (0.0, 2.0)
    task.begin_turn()
    # The main thread may have looked at the clock before that.
    assert (task.turn_seconds(clock.now - 3), task.state(clock.now - 3).work_seconds) == (0.0, 2.0)
    clock.now += 1
    assert task.state(clock.now).work_seconds == 3.0
    task.end_turn()
    assert task.state(clock.now).work_seconds == 3.0


def test_cancelled_job_overruns_only_in_its_turn(clock: Clock) -> None:
    task = made(600)
    task.begin_turn()
    clock.now += 5
    assert task.overrun(clock.now) == 0.0
    task.cancel()
    clock.now += 1
    assert task.overrun(clock.now) == 1.0
    task.end_turn()
    clock.now += 5
    assert task.overrun(clock.now) == 0.0
    task.begin_turn()
    clock.now += 2
    assert task.overrun(clock.now) == 2.0


@pytest.mark.parametrize(
    ("seconds", "at_checkpoint", "patience"), [(600, True, 0), (600, False, 10), (5, True, 120)]
)
def test_suspended_job_ends_at_its_checkpoint_or_soon(
    clock: Clock, seconds: float, at_checkpoint: bool, patience: float
) -> None:
    task = made(seconds)
    task.check(at_checkpoint)
    task.suspend()
    if patience:
        clock.now += patience - 1
        task.check(at_checkpoint)
        # The first call counts.
        task.suspend()
        clock.now += 1
    with pytest.raises(Suspended):
        task.check(at_checkpoint)


def test_search_for_speakers_is_silent_and_ignores_that_it_should_end(clock: Clock) -> None:
    text, search = made(600), made(600, options=Options(task="speakers"))
    assert (text.silent_seconds, search.silent_seconds) == (0.0, 120.0)
    assert (text.grace(5.0), search.grace(5.0), search.grace(0.1)) == (5.0, 0.5, 0.1)
    for task, ignores in ((text, False), (search, True)):
        task.suspend()
        assert not task.ignores_suspension(clock.now + 9)
        assert task.ignores_suspension(clock.now + 10) is ignores


def test_cancelled_job_has_an_answer_also_if_it_is_suspended(clock: Clock) -> None:
    task = made(600)
    task.suspend()
    task.cancel()
    clock.now += 1
    task.cancel()
    assert task.cancelled_at == 1000.0
    with pytest.raises(Cancelled):
        task.check(at_checkpoint=True)
