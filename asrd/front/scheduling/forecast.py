"""The work of jobs, and how long they will wait, from the speed of each worker and the progress of
what runs. Pure.

The unit is the window: all windows of a recording cost about the same on one worker. A command of a
few seconds costs much less, so there is one cost for each.
"""

import math
from collections.abc import Collection

from asrd.front.scheduling.fairqueue import FairQueue
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.workers import Worker, Workers
from asrd.wire.records import WINDOW_SECONDS

# The weight of the newest report.
_NEWEST = 0.2
# Of a file of unknown length: MP3 with 128 kbit/s.
_BYTES_PER_SECOND = 16_000
# The work of one window, where any number is better than none.
_GUESS_SECONDS = 1.0


class Forecast:
    """Times are in seconds. What is not known yet counts as no time."""

    def __init__(self, workers: Workers, queue: FairQueue) -> None:
        self._workers = workers
        self._queue = queue
        # The work of one window by worker, model, and length of the job: True for recordings.
        self._window: dict[tuple[str, str | None, bool], float] = {}

    def learn(self, job: Job, worker: Worker, done: float, ended: bool = False) -> None:
        """So many seconds of a job's audio are done; the job has ended, or is on its way."""
        windows, work = (done - job.resumed_at) / WINDOW_SECONDS, job.work - job.work_before
        # The end of a resumed recording is no command: it took time to get there.
        measured = windows > 1 or (ended and not job.resumed_at)
        # A search for speech takes a few milliseconds, and says nothing about the model.
        if work > 0 and measured and not job.needs.speech:
            found, kind = work / max(1.0, windows), (worker.name, worker.model, windows > 1)
            known = self._window.setdefault(kind, found)
            self._window[kind] = known + _NEWEST * (found - known)

    def work(self, job: Job, worker: Worker) -> float:
        """Returns the work that is left of a job if it runs on `worker`."""
        if job.ended:
            return 0.0
        seconds = _seconds(job)
        recording = seconds - job.resumed_at > WINDOW_SECONDS
        window = self._window.get((worker.name, worker.model, recording), 0.0)
        if recording:
            return window * max(1, math.ceil((seconds - job.done) / WINDOW_SECONDS))
        return max(0.0, window - (job.work - job.work_before))

    def work_or_guess(self, job: Job, worker: Worker) -> float:
        """Returns the work that is left of a job that starts on `worker`; never nothing, so that
        users take turns from the first job on."""
        windows = max(1.0, (_seconds(job) - job.done) / WINDOW_SECONDS)
        return self.work(job, worker) or _GUESS_SECONDS * windows

    def next_window(self, job: Job, worker: Worker) -> float:
        """Returns the work of the job's next window on `worker`: all that a user has taken in
        advance. More windows come only with more turns."""
        windows = max(1, math.ceil((_seconds(job) - job.done) / WINDOW_SECONDS))
        return self.work_or_guess(job, worker) / windows

    def until_place(self, job: Job) -> float:
        """Returns the time until one of the workers that suit `job` has a place for it. Nobody
        knows when one that loads will be ready."""
        suitable = [] if self._workers.expected(job) else self._workers.serving_for(job)
        place = min((self._until_place(job, worker) for worker in suitable), default=0.0)
        if self._queue.may_start(job):
            return place
        running = (
            self._until_end(other, worker)
            for worker in self._workers.values()
            for other in worker.jobs.values()
            if other.user == job.user and not (other.ended or other.step)
        )
        return max(place, min(running, default=0.0))

    def wait(self, job: Job) -> float:
        """Returns the time until `job` starts, if it waits from now on."""
        workers = self._workers.serving_for(job)
        if not workers or self._workers.expected(job):
            return 0.0
        apart = all(worker.slots > 1 for worker in workers)

        def in_the_way(other: Job) -> float:
            # A search for speech takes a few milliseconds.
            if other.needs.speech or (apart and other.long != job.long):
                return 0.0
            shared = self._shared(other, workers)
            return min((self.work(other, worker) for worker in shared), default=0.0)

        return self.until_place(job) + self._queue.work_ahead(job, in_the_way) / len(workers)

    def _shared(self, job: Job, workers: Collection[Worker]) -> list[Worker]:
        return [worker for worker in self._workers.suitable(job) if worker in workers]

    def _until_end(self, job: Job, worker: Worker) -> float:
        """Long jobs take turns; short ones run one after another."""
        long = sum(other.long and not other.ended for other in worker.jobs.values())
        return self.work(job, worker) * (long if job.long else 1)

    def _until_place(self, job: Job, worker: Worker) -> float:
        if worker.has_place(job):
            return 0.0
        there = worker.jobs.values()
        alike = [other for other in there if other.long == job.long]
        own = [other for other in alike if other.long and other.user == job.user]
        if job.long and not own and not worker.crowded:
            # Any job that ends leaves a place for it.
            alike = []
        return min(self._until_end(other, worker) for other in own or alike or there)


def _seconds(job: Job) -> float:
    """Returns the length of a job's audio; a file that is not known to be long has one window."""
    return job.seconds or (job.size / _BYTES_PER_SECOND if job.long else 0.0)
