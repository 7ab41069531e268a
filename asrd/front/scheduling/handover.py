"""The jobs of one front become those of the next. Pure."""

import math

from asrd.front.scheduling.job import Job
from asrd.front.scheduling.scheduler import Scheduler


def suspend(scheduler: Scheduler, now: float) -> list[Job]:
    """Takes all jobs back from the workers, and starts none any more. Returns all jobs in the order
    in which the next front should start them; the clocks of their waits stand still."""
    scheduler.suspended = True
    for worker in scheduler.workers.values():
        scheduler.give_back(worker.release_all().values(), now)
    for job in (jobs := list(scheduler.queue)):
        scheduler.limits.stop_clock(job, now)
    return jobs


def resume(scheduler: Scheduler, job: Job, now: float) -> None:
    """Makes a job of the front before this one wait here, in the order of the calls. The time that
    it may still wait is in `wait_left` (infinity: until its own timeout) and `load_left`."""
    scheduler.queue.resume(job, returned=job.attempts > 0)
    scheduler.limits.go_on_waiting(job, math.isinf(job.wait_left), now)
