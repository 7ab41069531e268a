"""What a worker runs, with an inference that only notes what it is asked."""

import os
from collections.abc import Iterator
from typing import cast

import pytest

from asrd.errors import ProtocolError
from asrd.wire.fds import OwnedFd
from asrd.wire.records import AudioFormat, Options
from asrd.wire.worker_events import StartJob
from asrd.worker.inference import Inference, Task
from asrd.worker.tasks import Tasks


class Noting:
    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def discard(self, task: Task) -> None:
        self.asked.append(("drop", task.job.key))
        task.close()


def tasks() -> tuple[Tasks, list[tuple[str, int]]]:
    noting = Noting()
    return Tasks(cast(Inference, noting)), noting.asked


MADE: list[Task] = []


def task(key: int) -> Task:
    fd = OwnedFd(os.memfd_create("test"))
    job = StartJob(key, "a", AudioFormat("file"), Options(), 1)
    MADE.append(Task(job, fd))
    return MADE[-1]


@pytest.fixture(autouse=True)
def close_all() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def test_there_is_one_place() -> None:
    made, asked = tasks()
    made.take(task(1))
    with pytest.raises(ProtocolError, match="no place"):
        made.take(task(2))
    assert asked == [("drop", 2)]
    made.cancel(3)
    assert made.running is not None and made.running.cancelled_at is None
    made.cancel(1)
    assert made.running.cancelled_at is not None
    assert (made.take_due(), made.take_due()) == (made.running, None)


def test_stuck_is_what_goes_on_long_after_it_was_cancelled() -> None:
    made, _ = tasks()
    made.take(task(1))
    made.cancel_all()
    assert made.running is not None
    asked_at = made.running.cancelled_at or 0.0
    assert made.stuck(5.0, asked_at + 4.9) is None
    assert made.stuck(5.0, asked_at + 5.1) is made.running
