"""Deadlines that were replaced or outlived must neither fire nor pile up."""

from asrd.front.scheduling.deadlines import Deadlines
from asrd.front.scheduling.job import Job


def job(timeout: float | None = None) -> Job:
    return Job(user=1, arrival=100.0, timeout=timeout)


def test_earliest_deadline_that_counts_is_first() -> None:
    deadlines, moved, late, early = Deadlines(), job(), job(), job()
    assert deadlines.first() is None
    for one, due in ((moved, 110.0), (late, 130.0), (early, 120.0), (moved, 140.0)):
        deadlines.set(one, due)
    for one in (early, late, moved):
        assert deadlines.first() is one
        one.ended = True
    assert (deadlines.first(), len(deadlines)) == (None, 0)


def test_own_timeout_counts_from_arrival_and_only_shortens() -> None:
    deadlines, short, long = Deadlines(), job(timeout=5.0), job(timeout=500.0)
    deadlines.set(short, 130.0)
    deadlines.set(long, 130.0)
    assert (short.deadline, long.deadline) == (105.0, 130.0)


def test_jobs_that_end_in_time_leave_nothing_behind() -> None:
    deadlines, living = Deadlines(), [job() for _ in range(10)]
    for one in living:
        deadlines.set(one, 10_000.0)
    for number in range(10_000):
        passing = job()
        deadlines.set(passing, 1000.0 + number)
        passing.ended = True
        assert len(deadlines) <= 3 * len(living) + 128
    # The sweeps kept every job that lives.
    for _ in living:
        first = deadlines.first()
        assert first in living and first is not None
        first.ended = True
    assert deadlines.first() is None
