"""Deadlines that were outlived must not pile up; test_scheduler_histories.py proves the rest."""

from asrd.front.scheduling.deadlines import Deadlines
from asrd.front.scheduling.job import Job


def test_jobs_that_end_in_time_leave_nothing_behind() -> None:
    deadlines, living = Deadlines(), [Job(1, 100.0) for _ in range(10)]
    for one in living:
        deadlines.set(one, 10_000.0)
    for number in range(10_000):
        passing = Job(1, 100.0)
        deadlines.set(passing, 1000.0 + number)
        passing.ended = True
        assert len(deadlines) <= 3 * len(living) + 128
    # The sweeps kept every job that lives.
    for _ in living:
        first = deadlines.first()
        assert first in living and first is not None
        first.ended = True
    assert deadlines.first() is None
