"""What a worker runs and holds, with an inference that only notes what it is asked."""

import os
from collections.abc import Iterator
from typing import cast

import pytest

from asrd.errors import ProtocolError
from asrd.wire.fds import OwnedFd
from asrd.wire.records import AudioFormat, Options
from asrd.wire.worker_events import RunJob, StartJob
from asrd.worker.inference import Inference, Task
from asrd.worker.tasks import Tasks


class Noting:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def prepare(self, task: Task) -> None:
        self.asked.append(("read", task.job.key))

    def discard(self, task: Task) -> None:
        self.asked.append(("drop", task.job.key))
        task.close()


def tasks(can_hold: bool = True) -> tuple[Tasks, list[tuple[str, int]]]:
    noting = Noting()
    return Tasks(cast(Inference, noting), can_hold), noting.asked


MADE: list[Task] = []


def task(key: int, hold: bool = False, alone: bool = False) -> Task:
    fd = OwnedFd(os.memfd_create("test"))
    job = StartJob(key, "a", AudioFormat("file"), Options(), 1, hold=hold, alone=alone)
    MADE.append(Task(job, fd))
    return MADE[-1]


@pytest.fixture(autouse=True)
def close_all() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def test_one_runs_and_one_is_held_until_its_turn() -> None:
    made, asked = tasks()
    made.take(task(1))
    made.take(task(2, hold=True))
    assert made.running is not None and made.running.job.key == 1
    assert (made.take_due(), made.take_due()) == (made.running, None)
    made.answered()
    made.run_held(RunJob(2, alone=True))
    assert made.running.job.key == 2 and made.running.alone
    assert (made.take_due(), made.take_due()) == (made.running, None)
    assert asked == [("read", 2)]


@pytest.mark.parametrize("hold", [False, True])
def test_there_is_one_place_for_each(hold: bool) -> None:
    made, asked = tasks()
    made.take(task(1, hold))
    with pytest.raises(ProtocolError, match="no place"):
        made.take(task(2, hold))
    assert asked[-1] == ("drop", 2)
    made.cancel_all()


def test_who_did_not_say_so_holds_nothing() -> None:
    made, asked = tasks(can_hold=False)
    with pytest.raises(ProtocolError, match="no place"):
        made.take(task(1, hold=True))
    assert asked == [("drop", 1)]


def test_what_is_not_held_cannot_be_run() -> None:
    made, _ = tasks()
    made.take(task(1, hold=True))
    with pytest.raises(ProtocolError, match="job 2 is not held"):
        made.run_held(RunJob(2))
    made.cancel_all()


def test_a_held_job_has_no_turn_while_another_runs() -> None:
    made, asked = tasks()
    made.take(task(1))
    made.take(task(2, hold=True))
    with pytest.raises(ProtocolError, match="no place"):
        made.run_held(RunJob(2))
    assert asked[-1] == ("drop", 2)


def test_cancel_stops_the_one_and_forgets_the_other() -> None:
    made, asked = tasks()
    made.take(task(1))
    made.take(task(2, hold=True))
    made.cancel(3)
    made.cancel(2)
    assert asked[-1] == ("drop", 2)
    assert made.running is not None and made.running.cancelled_at is None
    made.cancel(1)
    asked_at = made.running.cancelled_at
    assert asked_at is not None
    made.cancel(1)
    assert made.running.cancelled_at == asked_at


def test_stuck_is_what_goes_on_long_after_it_was_cancelled() -> None:
    made, _ = tasks()
    made.take(task(1))
    made.cancel_all()
    assert made.running is not None
    asked_at = made.running.cancelled_at or 0.0
    assert made.stuck(5.0, asked_at + 4.9) is None
    assert made.stuck(5.0, asked_at + 5.1) is made.running


def test_a_reading_that_goes_on_counts_only_while_nothing_runs_beside_it() -> None:
    made, _ = tasks()
    made.take(task(1))
    reading = task(2, hold=True)
    made.take(reading)
    # It hangs: nobody closes it.
    made._inference.discard = lambda task: None  # type: ignore[method-assign]
    made.cancel(2)
    later = (reading.cancelled_at or 0.0) + 6.0
    assert made.stuck(5.0, later) is None
    made.answered()
    assert made.stuck(5.0, later) is reading
    made.take(task(3, alone=True))
    assert made.stuck(5.0, later) is reading
    reading.close()
    assert made.stuck(5.0, later) is None
