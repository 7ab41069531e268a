"""The scheduler decides which job runs where and how each job ends. Pure: an event and the time go
in, a list of actions comes out; there is no clock, no I/O and no await. Read this first: it is the
daemon.

The life of a job:

    submit ──Refuse──▶ (never accepted)
       │
     Accept          worker lost, attempts left: back to the head
       │            ┌────────────────────────────┐
       ▼            ▼                            │
     QUEUED ──Start──▶ RUNNING ──────────────────┘
       │                 │
       └──── Finish ─────┘      exactly one, for every job that got Accept

Rules:
1. All jobs wait in one queue. A job starts on the first free worker that suits it (rule 8). A
   worker runs one job at a time.
2. The user who was served longest ago is next: a flood delays others by the running jobs alone.
3. The queue is bounded in jobs, bytes and seconds. A job whose worker died returns to its head, and
   does not count against these limits.
4. Each Start has a key that is never used again. An answer with any other key is a breach.
5. Finish ends a job at once. A worker that still runs it must stop (Abandon), and gets no other job
   until it answers or dies.
6. A worker that is FAILED or DOWN stays so until it is ready: no job waits for it.
7. A spare worker gets jobs only while no other ready worker has its model.
8. A worker suits a job if its model has the name that the job asks for (if any), knows the job's
   language (if any) and can do its task. An alias of the settings counts as the model's own name,
   unless a model has exactly that name. A worker whose model has exactly the name (or another name
   of the same official model) is preferred to one whose directory has it. For a job without a
   language, a multilingual model is preferred, since an English-only one turns German into invented
   English. A job waits for a preferred worker that is busy, asleep or loading, and goes to another
   only if no preferred one can be expected. The last report of a worker's model counts, also while
   it loads. A worker that never reported may suit any job, but is not preferred. A job that no
   worker suits is refused, and the answer names the field.
"""

import math
from collections.abc import Iterable, Iterator
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
from asrd.front.scheduling.deadlines import Deadlines
from asrd.front.scheduling.fairqueue import FairQueue
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.retry_after import RetryAfter
from asrd.front.scheduling.workers import UNKNOWN, UNUSABLE, Skills, Worker, Workers, WorkerState
from asrd.settings import FrontSettings


class UnknownKey(Exception):
    """A worker answered for a job that it does not run."""


class Scheduler:
    """Every method that takes `now` returns the actions to perform, in their order."""

    def __init__(self, settings: FrontSettings) -> None:
        self.settings = settings
        self.workers = Workers(settings.model_aliases)
        self.queue = FairQueue(settings)
        self.draining = False
        self.retried = 0
        self._deadlines = Deadlines()
        self._retry_after = RetryAfter()
        self._last_key = 0
        self._actions: list[Action] = []

    # --- queries -----------------------------------------------------------------------------

    def running(self) -> Iterator[Job]:
        return (worker.job for worker in self.workers.values() if worker.job is not None)

    @property
    def idle(self) -> bool:
        """True if every accepted job has ended."""
        return not len(self.queue) and next(self.running(), None) is None

    def next_deadline(self) -> float:
        """Returns the time of the next `tick`; infinity if there is nothing to wait for."""
        job = self._deadlines.first()
        return math.inf if job is None else job.deadline

    def retry_after_ms(self, job: Job, now: float) -> int:
        """Returns the delay after which the client of a refused job should try again."""
        ready = set(self.workers.serving())
        names = sorted(w.name for w in self.workers.suitable(job.needs) if w in ready)
        return round(1000 * self._retry_after.next_delay(job.user, tuple(names), now))

    def running_on(self, name: str, key: int) -> Job | None:
        """Returns the job that a worker runs under this key, None if it was abandoned.

        Raises UnknownKey if the worker does not run it.
        """
        worker = self.workers[name]
        if key != worker.key:
            raise UnknownKey(f"worker {name} answered for job {key}, which it does not run")
        return worker.job

    # --- jobs --------------------------------------------------------------------------------

    def submit(self, job: Job, now: float) -> list[Action]:
        failure = self._refusal(job, now)
        if failure is not None:
            self._actions.append(Refuse(job, failure))
            if failure.code is Code.BUSY:
                # With queue_max = 0 no job waits, so that the refused ones must wake workers.
                self._wake([job])
            return self.tick(now)
        accept = Accept(job, len(self.queue))
        self.queue.append(job)
        self._set_wait(job, now)
        actions = self.tick(now)
        # Start comes before Accept: the worker has more to do before there is an answer. But the
        # end of a job that is overdue at once comes after its acceptance.
        actions.insert(0 if job.ended else len(actions), accept)
        return actions

    def end(self, job: Job, failure: Failure, now: float) -> list[Action]:
        """Ends a job for the front: its client cancelled it or left. Does nothing to one that has
        ended."""
        if not job.ended:
            self._finish(job, failure)
        return self.tick(now)

    def drain(self, now: float) -> list[Action]:
        """Accepts no more jobs. Each accepted job goes on, and waits max_wait_seconds at most: from
        now on, if it has a timeout of its own."""
        accepted = [] if self.draining else [*self.queue, *self.running()]
        self.draining = True
        for job in accepted:
            if job.timeout is not None:
                job.waits_since = now
            if job.worker is None:
                self._set_wait(job, job.waits_since)
        return self.tick(now)

    def tick(self, now: float) -> list[Action]:
        """Ends what is overdue, starts what can start; returns all actions since the last call."""
        while (job := self._deadlines.first()) is not None and job.deadline <= now:
            phase, waited = ("queue", "waited") if job.worker is None else ("run", "ran")
            since = job.arrival if job.worker is None else job.started_at
            text = f"the job {waited} {now - since:.1f} s, longer than allowed"
            self._finish(job, Failure(Code.DEADLINE_EXCEEDED, text, phase=phase))
        self._dispatch(now)
        self._wake(self.queue)
        actions, self._actions = self._actions, []
        return actions

    # --- workers -----------------------------------------------------------------------------

    def worker_added(self, name: str, now: float) -> list[Action]:
        """The worker is new, or was retired and has its socket again."""
        self.workers.setdefault(name, Worker(name)).retired = False
        return self.tick(now)

    def worker_retired(self, name: str, now: float) -> list[Action]:
        """The worker's socket is gone: it gets no more jobs, and may be removed once it is idle."""
        self.workers[name].retired = True
        return self._workers_changed(now)

    def worker_removed(self, name: str, now: float) -> list[Action]:
        return self._gone(self.workers.pop(name), f"worker {name} was removed", now)

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
        self, name: str, model: str, now: float, spare: bool = False, skills: Skills = UNKNOWN
    ) -> list[Action]:
        worker = self.workers[name]
        worker.state, worker.reason, worker.woken = WorkerState.READY, None, False
        worker.model, worker.skills, worker.spare = model, skills, spare
        return self._workers_changed(now)

    def worker_lost(self, name: str, how: str, now: float) -> list[Action]:
        """The worker died or broke the protocol. Its job is retried or ends."""
        worker = self.workers[name]
        if worker.state not in UNUSABLE:
            worker.state = WorkerState.STARTING
        return self._gone(worker, how, now)

    def worker_left(self, name: str, asleep: bool, now: float) -> list[Action]:
        """The worker ended by itself. A job on its way there was not started: it is no attempt, and
        counts as waiting all the time."""
        worker = self.workers[name]
        if asleep or worker.state not in UNUSABLE:
            worker.state = WorkerState.ASLEEP if asleep else WorkerState.STARTING
        worker.woken = False
        job = worker.release()
        if job is not None:
            job.attempts -= 1
            self._requeue(job, job.waits_since)
        return self._workers_changed(now)

    def worker_failed(self, name: str, state: WorkerState, reason: str, now: float) -> list[Action]:
        """The worker reported that it can't serve (FAILED), or nothing listens (DOWN)."""
        worker = self.workers[name]
        worker.state, worker.reason = state, reason
        return self._gone(worker, reason, now)

    def job_done(self, name: str, key: int, result: object, now: float) -> list[Action]:
        """Raises UnknownKey if the worker does not run it, as `job_failed` does."""
        job = self.running_on(name, key)
        self.workers[name].release()
        if job is not None:
            self._retry_after.job_ran(now - job.started_at)
            self._finish(job, result)
        return self.tick(now)

    def job_failed(
        self, name: str, key: int, failure: Failure, now: float, fatal: bool = False
    ) -> list[Action]:
        """`fatal`: the process is poisoned and ends now, which counts as a crash."""
        job = self.running_on(name, key)
        if fatal:
            return self.worker_lost(name, failure.text, now)
        self.workers[name].release()
        if job is not None:
            self._finish(job, failure)
        return self.tick(now)

    # --- inside ------------------------------------------------------------------------------

    def _refusal(self, job: Job, now: float) -> Failure | None:
        if self.draining:
            return Failure(Code.SHUTTING_DOWN, "asrd is shutting down", retry_after_ms=1000)
        failure = self.workers.why_hopeless(job.needs) or self.workers.why_ambiguous(job.needs)
        if failure is not None:
            return failure
        suitable = self.workers.suitable(job.needs)
        if any(worker.free and worker in suitable for worker in self.workers.serving()):
            return None
        full = self.queue.why_full(job)
        if full is None:
            return None
        return Failure(Code.BUSY, full, retry_after_ms=self.retry_after_ms(job, now))

    def _set_wait(self, job: Job, since: float) -> None:
        job.waits_since = since
        # A job with a timeout of its own may wait until then, also as a retry. But a drain is
        # short: the service manager waits for the daemon to end, and kills it at last.
        patient = job.timeout is not None and not self.draining
        longest = math.inf if patient else self.settings.max_wait_seconds
        self._deadlines.set(job, since + longest)

    def _dispatch(self, now: float) -> None:
        free = (worker for worker in self.workers.serving() if worker.free)
        for worker in sorted(free, key=lambda w: w.name):
            job = self.queue.first(self.workers.suits(worker))
            if job is None:
                self._retry_after.worker_idle(worker.name)
            else:
                self._start(job, worker, now)

    def _start(self, job: Job, worker: Worker, now: float) -> None:
        self.queue.serve(job)
        job.attempts += 1
        self._last_key += 1
        worker.key, worker.job = self._last_key, job
        job.worker, job.started_at = worker.name, now
        self._deadlines.set(job, now + self.settings.max_run_seconds)
        self._actions.append(Start(job, worker.name, self._last_key))

    def _wake(self, jobs: Iterable[Job]) -> None:
        """Wakes one sleeping worker for each waiting job, less those that are on their way."""
        asleep = [w for w in self.workers.values() if w.state is WorkerState.ASLEEP]
        coming = [w for w in self.workers.values() if w.woken]
        for job in jobs if asleep else ():
            suitable = self.workers.suitable(job.needs)
            worker = next((w for w in coming + asleep if w in suitable), None)
            if worker in coming:
                coming.remove(worker)
            elif worker is not None:
                asleep.remove(worker)
                worker.state, worker.woken = WorkerState.STARTING, True
                self._actions.append(Wake(worker.name))

    def _finish(self, job: Job, outcome: Any) -> None:
        job.ended = True
        worker = self.workers.get(job.worker or "")
        if job.worker is None:
            self.queue.remove(job)
        elif worker is not None and worker.job is job and worker.key is not None:
            worker.job = None
            self._actions.append(Abandon(worker.name, worker.key))
        self._actions.append(Finish(job, outcome))

    def _gone(self, worker: Worker, how: str, now: float) -> list[Action]:
        """The worker's process is gone. Its job is retried, or ends if it was its last attempt."""
        worker.woken = False
        job = worker.release()
        if job is not None and job.attempts < self.settings.max_attempts:
            self.retried += 1
            self._requeue(job, now)
        elif job is not None:
            text = f"the worker died in each of {job.attempts} attempts; the last time: {how}"
            self._finish(job, Failure(Code.WORKER_CRASHED, text))
        return self._workers_changed(now)

    def _requeue(self, job: Job, since: float) -> None:
        job.worker = None
        self.queue.put_back(job)
        self._set_wait(job, since)

    def _workers_changed(self, now: float) -> list[Action]:
        """Ends the jobs that no worker can run any more."""
        for job in list(self.queue):
            failure = self.workers.why_hopeless(job.needs)
            if failure is not None:
                self._finish(job, failure)
        return self.tick(now)
