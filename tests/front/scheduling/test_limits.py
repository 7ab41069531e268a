"""The clocks of waits and runs."""

from asrd.front.scheduling.job import Job
from asrd.front.scheduling.limits import TimeLimits
from asrd.settings import FrontSettings


def limits() -> TimeLimits:
    return TimeLimits(
        FrontSettings(max_wait_seconds=30.0, max_load_seconds=100.0, max_run_seconds=60.0)
    )


def test_wait_stands_still_while_it_is_held_up() -> None:
    it, job = limits(), Job(1, 0.0)
    it.begin_wait(job, False, 0.0)
    assert job.deadline == 30.0
    it.hold_up(job, True, 10.0)
    assert job.deadline == 130.0
    it.hold_up(job, False, 60.0)
    assert job.deadline == 80.0
    # What is left of the time for loading counts for the next load.
    it.hold_up(job, True, 70.0)
    assert job.deadline == 70.0 + 10.0 + 50.0
    it.hold_up(job, False, 125.0)
    assert job.deadline == 130.0


def test_jobs_own_timeout_bounds_a_wait_that_is_held_up() -> None:
    it, patient, other = limits(), Job(1, 0.0, timeout=500.0), Job(1, 0.0, timeout=50.0)
    for job in (patient, other):
        it.begin_wait(job, True, 0.0)
        it.hold_up(job, True, 10.0)
    assert (patient.deadline, other.deadline) == (500.0, 50.0)


def test_overdue_job_is_not_saved_by_a_worker_that_starts_to_load() -> None:
    it, job = limits(), Job(1, 0.0)
    it.begin_wait(job, False, 0.0)
    it.hold_up(job, True, 30.0)
    assert it.overdue(30.0) is job


def running(it: TimeLimits, timeout: float | None = None) -> Job:
    job = Job(1, 0.0, timeout=timeout, worker="0")
    it.begin_run(job, 0.0)
    return job


def work(job: Job, seconds: float, now: float) -> None:
    job.work, job.since = seconds, now


def test_run_counts_its_own_turns() -> None:
    it = limits()
    job = running(it)
    work(job, 20.0, 59.0)
    assert it.overdue(60.0) is None
    assert job.deadline == 100.0
    work(job, 59.9, 99.9)
    assert it.overdue(100.0) is None
    # About as often as its worker reports.
    assert job.deadline == 100.5
    work(job, 60.2, 100.4)
    assert it.overdue(100.5) is job


def test_run_without_reports_of_work_ends() -> None:
    it = limits()
    silent = running(it)
    assert it.overdue(59.9) is None
    assert it.overdue(60.0) is silent
    silent.ended = True
    stuck = running(it)
    work(stuck, 5.0, 8.0)
    assert it.overdue(67.9) is None
    assert it.overdue(68.0) is stuck


def test_run_ends_at_its_own_timeout_whatever_it_worked() -> None:
    it = limits()
    job = running(it, timeout=45.0)
    work(job, 1.0, 44.0)
    assert it.overdue(45.0) is job
