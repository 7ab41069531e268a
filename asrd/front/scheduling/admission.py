"""The decision about a new job: accepted, or refused for an honest reason. Pure."""

from asrd.errors import Code
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.fairqueue import FairQueue
from asrd.front.scheduling.forecast import Forecast
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.retry_after import RetryAfter
from asrd.front.scheduling.workers import Workers
from asrd.settings import FrontSettings


class Admission:
    def __init__(
        self, settings: FrontSettings, workers: Workers, queue: FairQueue, forecast: Forecast
    ) -> None:
        self._settings = settings
        self._workers, self._queue, self._forecast = workers, queue, forecast
        self._retry_after = RetryAfter()

    def refusal(self, job: Job, now: float) -> Failure | None:
        failure = self._workers.why_hopeless(job) or self._workers.why_ambiguous(job)
        if failure is not None or job.step or self._has_place(job):
            return failure
        full = self._queue.why_full(job)
        if full is not None:
            return self._busy(full, job, now, 0.0)
        patience = self._settings.max_wait_seconds
        if job.timeout is not None:
            patience = max(0.0, job.arrival + job.timeout - now)
        wait = self._forecast.wait(job)
        if wait <= patience:
            return None
        why = f"it would wait about {wait:.0f} s, longer than the {patience:g} s that it may"
        return self._busy(why, job, now, wait - patience)

    def retry_after_ms(self, job: Job, now: float, soonest: float = 0.0) -> int:
        """Returns the delay after which the client of a refused job should try again, not before
        `soonest` seconds."""
        workers = self._workers.serving_for(job)
        soonest = max(soonest, self._forecast.until_place(job))
        run = min((self._forecast.work_or_guess(job, worker) for worker in workers), default=1.0)
        place = tuple(sorted(worker.name for worker in workers)), job.long
        return round(1000 * self._retry_after.next_delay(job.user, place, soonest, run, now))

    def places_are_left(self) -> None:
        """No waiting job wants the places that are free now: the next clients get them."""
        for worker in self._workers.serving():
            for long in (False, True):
                if worker.has_room(long):
                    self._retry_after.place_free(worker.name, long)

    def _has_place(self, job: Job) -> bool:
        workers = self._workers.serving_for(job)
        return self._queue.may_start(job) and any(w.has_place(job) for w in workers)

    def _busy(self, why: str, job: Job, now: float, soonest: float) -> Failure:
        return Failure(Code.BUSY, why, retry_after_ms=self.retry_after_ms(job, now, soonest))
