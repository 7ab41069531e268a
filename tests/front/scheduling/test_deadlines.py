"""Deadlines that are overtaken or outlived must neither fire nor pile up."""

from asrd.front.scheduling.deadlines import Deadlines
from asrd.front.scheduling.job import Job


def job(timeout: float | None = None) -> Job:
    return Job(user=1, arrival=100.0, timeout=timeout)


def test_the_earliest_is_first() -> None:
    deadlines, late, early = Deadlines(), job(), job()
    assert deadlines.first() is None
    deadlines.set(late, 130.0)
    deadlines.set(early, 120.0)
    assert deadlines.first() is early
    early.ended = True
    assert deadlines.first() is late
    late.ended = True
    assert deadlines.first() is None
    assert len(deadlines) == 0


def test_only_the_deadline_set_last_counts() -> None:
    deadlines, moved, other = Deadlines(), job(), job()
    deadlines.set(moved, 110.0)
    deadlines.set(other, 120.0)
    deadlines.set(moved, 130.0)
    assert moved.deadline == 130.0
    assert deadlines.first() is other


def test_a_jobs_own_timeout_counts_from_its_arrival_and_may_only_shorten() -> None:
    deadlines, short, long = Deadlines(), job(timeout=5.0), job(timeout=500.0)
    deadlines.set(short, 130.0)
    deadlines.set(long, 130.0)
    assert (short.deadline, long.deadline) == (105.0, 130.0)


def test_jobs_that_end_in_time_leave_nothing_behind() -> None:
    deadlines = Deadlines()
    living = [job() for _ in range(10)]
    for one in living:
        deadlines.set(one, 10_000.0)
    for number in range(10_000):
        passing = job()
        deadlines.set(passing, 1000.0 + number)
        passing.ended = True
        assert len(deadlines) <= 3 * len(living) + 128
    assert deadlines.first() in living
    # The sweep forgets nobody who lives.
    for one in living:
        one.ended = True
    assert deadlines.first() is None
