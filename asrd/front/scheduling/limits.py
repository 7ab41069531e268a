"""The time that each job may wait and run (rule 10). Pure.

A wait has a clock, which stands still while the job is held up by a model that loads. A run has
one, too: the job's own turns. As long as its worker reports them, nothing else counts; a run
without a report of work for `max_run_seconds` has ended.
"""

import math

from asrd.front.scheduling.deadlines import Deadlines
from asrd.front.scheduling.job import Job
from asrd.settings import FrontSettings

# The shortest time until a run is looked at again: about one report of a worker.
_AGAIN_SECONDS = 0.5


class TimeLimits:
    """Sets each job's deadline. Of a job that waits, `since` is when its clock was last set going
    or stopped, `wait_left` and `load_left` are what was left then; of one that runs, `since` is
    the time of its last work."""

    def __init__(self, settings: FrontSettings) -> None:
        self.deadlines = Deadlines()
        self._settings = settings

    def begin_wait(self, job: Job, patient: bool, now: float) -> None:
        """A `patient` job may wait until the end of its own timeout."""
        job.wait_left, job.load_left = math.inf, self._settings.max_load_seconds
        self.go_on_waiting(job, patient, now)

    def go_on_waiting(self, job: Job, patient: bool, now: float) -> None:
        """The job was given back, and nothing had come of its run."""
        if not patient:
            job.wait_left = min(job.wait_left, self._settings.max_wait_seconds)
        job.since = now
        self.deadlines.set(job, now + job.wait_left)

    def hold_up(self, job: Job, held_up: bool, now: float) -> None:
        """The clock of a waiting job goes on or stands still. One that is overdue stays so."""
        if held_up == job.held_up or job.deadline <= now:
            return
        self.stop_clock(job, now)
        job.held_up = held_up
        self.deadlines.set(job, now + job.wait_left + (job.load_left if held_up else 0.0))

    def stop_clock(self, job: Job, now: float) -> None:
        passed = now - job.since
        if job.held_up:
            stood = min(passed, job.load_left)
            job.load_left -= stood
            passed -= stood
        job.wait_left -= passed
        job.since, job.held_up = now, False

    def begin_run(self, job: Job, now: float) -> None:
        self.stop_clock(job, now)
        self.deadlines.set(job, now + self._settings.max_run_seconds)

    def overdue(self, now: float) -> Job | None:
        """Returns a job whose time is over, None if there is none."""
        while (job := self.deadlines.first()) is not None and job.deadline <= now:
            own = job.timeout is not None and job.arrival + job.timeout <= now
            if job.worker is None or own or self._has_run(job, now):
                return job
        return None

    def _has_run(self, job: Job, now: float) -> bool:
        """Returns False, with a later deadline, if the worker spent part of the time on others."""
        longest = self._settings.max_run_seconds
        left = longest - job.work
        if left <= 0 or job.since + longest <= now:
            return True
        self.deadlines.set(job, min(now + max(left, _AGAIN_SECONDS), job.since + longest))
        return False
