"""The scheduler decides which job runs where and how each job ends. Pure: an event and the time go
in, a list of actions comes out; there is no clock, no I/O and no await. Read this first: it is the
daemon.

The life of a job:

    submit ──Refuse──▶ (never accepted)
       │
     Accept    worker lost or stopped: back to the head
       │            ┌────────────────────────────┐
       ▼            ▼                            │
     QUEUED ──Start──▶ RUNNING ──────────────────┘
       │                 │
       └──── Finish ─────┘      exactly one, for every job that got Accept

Rules:
1. All jobs wait in one queue. The user whose jobs have cost the least work is next; each starts on
   the worker with the least to do of those that suit it (rule 8) and have a place for it (rule 2).
2. The jobs of a worker take turns, window by window (asrd.worker.turns), and short ones come first.
   A job is long if more than one window of it is left. Long jobs never take all places of a worker,
   nor does one user: a short job always finds a place (Worker.has_room, has_place).
3. The queue is bounded in jobs, bytes and seconds, and for each user; but a user for whom nothing
   waits gets a place, and strangers have half of all places at most. A job that would wait longer
   than its client has patience is refused at once.
4. Each Start has a key that is never used again. An answer with any other key is a breach.
5. Finish ends a job at once. A worker that still has it must drop it (Abandon), and it keeps its
   place until the worker has answered or died.
6. A worker that is FAILED or DOWN stays so until it is ready: no job waits for it.
7. A spare worker gets jobs only while no other ready worker has its model, and takes recordings
   that are as long.
8. A worker suits a job if its model is the one that the job asks for, or else the default one, and
   can do what the job needs (asrd.front.scheduling.workers). A job that no worker suits is refused,
   and the answer names the field.
9. A worker's death is the fault of the job that had the turn; if that is unknown, of all that the
   worker had. After `max_attempts` deaths at the same place, without a window done in between, a
   job ends. All other jobs return to the head of the queue, and count against no limit.
10. A job waits `max_wait_seconds` at most, or as long as its own timeout; the wait stands still
   while the workers that suit it load (one of them, if the job has run already), for
   `max_load_seconds` at most. It runs for `max_run_seconds` of its own turns at most.
11. A worker's reports are not trusted: no job has had more turns than there was time, and a place
   that it was resumed from is no progress.
12. A step of a live stream costs its user turns like a job, but is none: it counts in no limit and
   no number, is never `busy`, and waits behind all jobs of its user that may start.
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from asrd.errors import Code
from asrd.front.scheduling.actions import (
    Abandon,
    Accept,
    Action,
    Failure,
    Finish,
    Refuse,
    Start,
    Wake,
)
from asrd.front.scheduling.admission import Admission
from asrd.front.scheduling.fairqueue import FairQueue
from asrd.front.scheduling.forecast import Forecast
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.limits import TimeLimits
from asrd.front.scheduling.workers import UNKNOWN, UNUSABLE, Skills, Worker, Workers, WorkerState
from asrd.settings import FrontSettings

SHUTTING_DOWN = Failure(Code.SHUTTING_DOWN, "asrd is shutting down", retry_after_ms=1000)


class UnknownKey(Exception):
    """A worker answered for a job that it does not run."""


class Scheduler:
    """Every method that takes `now` returns the actions to perform, in their order."""

    def __init__(self, settings: FrontSettings) -> None:
        self.settings = settings
        self.workers = Workers(settings.model_aliases, settings.default_model)
        self.queue = FairQueue(settings)
        self.draining = self.suspended = False
        self.retried = self.given_back = 0
        self._forecast = Forecast(self.workers, self.queue)
        self.limits = TimeLimits(settings)
        self.admission = Admission(settings, self.workers, self.queue, self._forecast)
        self._last_key = 0
        self._actions: list[Action] = []

    # --- queries -----------------------------------------------------------------------------

    def running(self) -> Iterator[Job]:
        return (j for worker in self.workers.values() for j in worker.jobs.values() if not j.ended)

    def unfinished(self) -> list[Job]:
        return [*self.queue, *self.running()]

    @property
    def idle(self) -> bool:
        return not self.unfinished()

    def next_deadline(self) -> float:
        """Returns the time of the next `tick`; infinity if there is nothing to wait for."""
        job = self.limits.deadlines.first()
        return math.inf if job is None else job.deadline

    def running_on(self, name: str, key: int) -> Job | None:
        """Returns the job that a worker has under this key, None if it has ended.

        Raises UnknownKey if the worker does not have it.
        """
        job = self.workers[name].jobs.get(key)
        if job is None:
            raise UnknownKey(f"worker {name} answered for job {key}, which it does not run")
        return None if job.ended else job

    # --- jobs --------------------------------------------------------------------------------

    def submit(self, job: Job, now: float) -> list[Action]:
        failure = SHUTTING_DOWN if self.draining else self.admission.refusal(job, now)
        if failure is not None:
            self._actions.append(Refuse(job, failure))
            if failure.code is Code.BUSY:
                # With queue_max = 0 no job waits, so that the refused ones must wake workers.
                self._wake([job])
            return self.tick(now)
        accept = Accept(job, len(self.queue))
        self.queue.append(job)
        self._begin_wait(job, now)
        actions = self.tick(now)
        # Start comes before Accept: the worker has more to do before there is an answer. But the
        # end of a job that is overdue at once comes after its acceptance.
        actions.insert(0 if job.ended else len(actions), accept)
        return actions

    def end(self, job: Job, failure: Failure, now: float) -> list[Action]:
        """Ends a job for the front: its client cancelled it or left. Does nothing to one that has
        ended."""
        if not job.ended:
            self._finish(job, failure, now)
        return self.tick(now)

    def drain(self, now: float) -> list[Action]:
        """Accepts no more jobs. Each accepted job goes on, and waits max_wait_seconds at most: from
        now on, if it has a timeout of its own."""
        waiting = [] if self.draining else list(self.queue)
        self.draining = True
        for job in waiting:
            if job.timeout is not None:
                self._begin_wait(job, now)
            self._update_wait(job, now)
        return self.tick(now)

    def tick(self, now: float) -> list[Action]:
        """Ends what is overdue, starts what can start; returns all actions since the last call."""
        while (job := self.limits.overdue(now)) is not None:
            phase, did = ("queue", "waited") if job.worker is None else ("run", "ran")
            if job.attempts > (job.worker is not None):
                did = "ran and waited"
            since = job.started_at if did == "ran" else job.arrival
            text = f"the job {did} {now - since:.1f} s, longer than allowed"
            self._finish(job, Failure(Code.DEADLINE_EXCEEDED, text, phase=phase), now)
        self._dispatch(now)
        self._wake(self.queue)
        actions, self._actions = self._actions, []
        return actions

    # --- workers -----------------------------------------------------------------------------

    def worker_added(self, name: str, now: float) -> list[Action]:
        """The worker is new, or was retired and has its socket again."""
        self.workers.setdefault(name, Worker(name)).retired = False
        return self._workers_changed(now)

    def worker_retired(self, name: str, now: float) -> list[Action]:
        """The worker's socket is gone: it gets no more jobs, and may be removed once it is idle."""
        self.workers[name].retired = True
        return self._workers_changed(now)

    def worker_removed(self, name: str, now: float) -> list[Action]:
        self.give_back(self.workers.pop(name).release_all().values(), now)
        return self._workers_changed(now)

    def worker_loading(
        self, name: str, model: str, now: float, skills: Skills | None = None
    ) -> list[Action]:
        """`skills` is None until the worker has looked at the model's files."""
        worker = self.workers[name]
        if worker.state not in UNUSABLE:
            worker.state = WorkerState.LOADING
        if skills is not None:
            worker.model, worker.skills = model, skills
        return self._workers_changed(now)

    def worker_ready(
        self,
        name: str,
        model: str,
        now: float,
        spare: bool = False,
        skills: Skills = UNKNOWN,
        slots: int = 1,
        max_audio_seconds: float = 0.0,
    ) -> list[Action]:
        """`slots` and `max_audio_seconds`: see Worker."""
        worker = self.workers[name]
        worker.state, worker.reason, worker.woken = WorkerState.READY, None, False
        worker.model, worker.skills, worker.spare = model, skills, spare
        worker.slots, worker.max_audio_seconds = slots, max_audio_seconds
        worker.failed_loads = 0
        return self._workers_changed(now)

    def worker_lost(self, name: str, how: str, now: float, turn: int = 0) -> list[Action]:
        """The worker died or broke the protocol; the job with the key `turn` had the turn. Its jobs
        are retried or end."""
        worker = self.workers[name]
        worker.failed_loads += worker.state is WorkerState.LOADING
        if worker.state not in UNUSABLE:
            worker.state = WorkerState.STARTING
        return self._gone(worker, how, now, turn)

    def worker_left(self, name: str, asleep: bool, now: float) -> list[Action]:
        """The worker ended by itself. Others go on with the jobs that it has not answered."""
        worker = self.workers[name]
        if asleep or worker.state not in UNUSABLE:
            worker.state = WorkerState.ASLEEP if asleep else WorkerState.STARTING
        worker.woken = False
        self.give_back(worker.release_all().values(), now)
        return self._workers_changed(now)

    def worker_failed(self, name: str, state: WorkerState, reason: str, now: float) -> list[Action]:
        """The worker reported that it can't serve (FAILED), or nothing listens (DOWN)."""
        worker = self.workers[name]
        worker.state, worker.reason = state, reason
        return self._gone(worker, reason, now)

    def job_state(
        self, name: str, key: int, work: float, done: float, total: float | None, now: float
    ) -> list[Action]:
        """A worker reports a job: seconds of its own turns in this attempt, and how many seconds of
        its audio are done, of how many. Raises UnknownKey, as all that take a key."""
        job, worker = self.running_on(name, key), self.workers[name]
        if job is not None:
            job.seconds = total or job.seconds
            job.done = max(job.done, min(done, job.seconds or done))
            self._note_work(job, work, now)
            self._forecast.learn(job, worker, job.done)
            self.queue.charge(job, job.work, self._forecast.next_window(job, worker))
        return self.tick(now)

    def job_moved(self, name: str, key: int, seconds: float) -> Job | None:
        """The audio before `seconds` is done, and kept. Returns the job, None if it has ended.

        From now on it is not where a worker may have died.
        """
        job = self.running_on(name, key)
        if job is not None and seconds > job.kept:
            job.kept, job.deaths = seconds, 0
        return job

    def job_done(
        self,
        name: str,
        key: int,
        result: object,
        now: float,
        work: float = 0.0,
        audio_seconds: float = 0.0,
    ) -> list[Action]:
        """`work` are the seconds of its own turns in this attempt."""
        job, worker = self.running_on(name, key), self.workers[name]
        del worker.jobs[key]
        if job is not None:
            self._note_work(job, work, now)
            self._forecast.learn(job, worker, audio_seconds, ended=True)
            self._finish(job, result, now)
        return self.tick(now)

    def job_failed(
        self, name: str, key: int, failure: Failure, now: float, fatal: bool = False
    ) -> list[Action]:
        """`fatal`: the process is poisoned and ends now, which counts as a crash. SHUTTING_DOWN: it
        only ends the other jobs that it has; the next process takes new ones."""
        job, worker = self.running_on(name, key), self.workers[name]
        if fatal:
            return self.worker_lost(name, failure.text, now, key)
        del worker.jobs[key]
        if failure.code is Code.SHUTTING_DOWN:
            worker.state = WorkerState.STARTING
            self.give_back([] if job is None else [job], now)
            return self._workers_changed(now)
        if job is None:
            return self.tick(now)
        if failure.code is Code.TOO_LARGE and worker.max_audio_seconds and worker.takes(job):
            # Longer than this worker takes, which nobody knew. Another one may take it.
            job.seconds = math.nextafter(worker.max_audio_seconds, math.inf)
            if self.workers.suitable(job):
                self.give_back([job], now)
                return self.tick(now)
        self._finish(job, failure, now)
        return self.tick(now)

    # --- inside ------------------------------------------------------------------------------

    def _begin_wait(self, job: Job, now: float, anew: bool = True) -> None:
        # A job with a timeout of its own may wait until then, also as a retry. But a drain is
        # short: the service manager waits for the daemon to end, and kills it at last.
        patient = job.timeout is not None and not self.draining
        begin = self.limits.begin_wait if anew else self.limits.go_on_waiting
        begin(job, patient, now)
        self._update_wait(job, now)

    def _update_wait(self, job: Job, now: float) -> None:
        self.limits.hold_up(job, not self.draining and self.workers.hold_up(job), now)

    def _note_work(self, job: Job, work: float, now: float) -> None:
        work = job.work_before + min(work, now - job.started_at)
        if work > job.work:
            job.since = now
            self.queue.charge(job, work, job.planned)

    def _dispatch(self, now: float) -> None:
        while not self.suspended and self._start_next(now):
            pass
        self.admission.places_are_left()

    def _start_next(self, now: float) -> bool:
        for worker in sorted(self.workers.serving(), key=lambda each: each.load):
            suits = partial(self.workers.may_start, worker)
            job = self.queue.first(worker.has_room, suits, self.workers.limited)
            if job is not None:
                self._start(job, worker, now)
                return True
        return False

    def _start(self, job: Job, worker: Worker, now: float) -> None:
        self.queue.start(job, self._forecast.next_window(job, worker))
        self._last_key += 1
        worker.jobs[self._last_key] = job
        job.key, job.worker, job.started_at = self._last_key, worker.name, now
        job.attempts += 1
        self.limits.begin_run(job, now)
        self._actions.append(Start(job, worker.name, self._last_key))

    def _wake(self, jobs: Iterable[Job]) -> None:
        """Wakes sleeping workers for jobs that wait."""
        wanted = (job for job in jobs if not self.suspended and self.queue.may_start(job))
        for worker in self.workers.sleepers_for(wanted):
            worker.state, worker.woken = WorkerState.STARTING, True
            self._actions.append(Wake(worker.name))

    def _finish(self, job: Job, outcome: Any, now: float) -> None:
        if job.worker is not None and job.work == job.work_before:
            # Its worker has reported no work yet: the estimate counts, or the time if that is less.
            self._note_work(job, min(job.planned, now - job.started_at), now)
        job.ended = True
        self.queue.end(job)
        worker = self.workers.get(job.worker or "")
        if worker is not None and worker.jobs.get(job.key) is job:
            self._actions.append(Abandon(worker.name, job.key))
        self._actions.append(Finish(job, outcome))

    def _gone(self, worker: Worker, how: str, now: float, turn: int = 0) -> list[Action]:
        """The worker's process is gone. Its jobs are retried; one that it died of may end."""
        worker.woken = False
        known = turn in worker.jobs
        jobs = worker.release_all()
        suspects = [job for key, job in jobs.items() if key == turn or not known]
        for job in suspects:
            job.deaths += 1
            if job.deaths >= self.settings.max_attempts:
                text = f"the worker died in each of {job.deaths} attempts; the last time: {how}"
                self._finish(job, Failure(Code.WORKER_CRASHED, text), now)
        left = [job for job in jobs.values() if not job.ended]
        self.retried += sum(not job.step for job in left)
        self.give_back(sorted(left, key=lambda job: job not in suspects), now)
        return self._workers_changed(now)

    def give_back(self, jobs: Iterable[Job], now: float) -> None:
        """These jobs wait again, in this order, before all others."""
        for job in reversed(list(jobs)):
            self.given_back += not job.step
            # Else a worker that takes jobs only to give them back would hold them forever.
            anew = job.work > job.work_before
            job.worker, job.work_before = None, job.work
            job.done = job.resumed_at = job.kept
            self.queue.give_back(job)
            self._begin_wait(job, now, anew)

    def _workers_changed(self, now: float) -> list[Action]:
        """Ends the jobs that no worker can run any more."""
        for job in list(self.queue):
            failure = self.workers.why_hopeless(job)
            if failure is not None:
                self._finish(job, failure, now)
            else:
                self._update_wait(job, now)
        return self.tick(now)
