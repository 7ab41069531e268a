"""Which job runs where, and how each one ends. Pure: an event and the time go in, a list of actions
comes out; no clock, no I/O, no await. Read this first: it is the daemon.

The life of a job:

    submit ──Refuse──▶ (never accepted)
       │
     Accept          lost worker, attempts left: back to the head
       │            ┌────────────────────────────┐
       ▼            ▼                            │
     QUEUED ──Start──▶ RUNNING ──────────────────┘
       │                 │
       └──── Finish ─────┘      exactly one, for every job that got Accept

Rules:
1. A job waits in one queue for all workers, and goes to one that suits it (rule 8), when that is
   free: a worker runs one job at a time.
2. The user who was served longest ago is next: a flood delays others by the jobs that run, no more.
3. The queue is bounded in jobs, bytes and seconds; a job whose worker died returns to its head
   without counting against the bounds.
4. Each Start carries a key that is never used again. An answer under any other key is a breach.
5. Finish ends a job here and now. A worker that still runs it is told to stop (Abandon), and
   takes no other until it answers or dies.
6. A FAILED or DOWN worker stays so until it says it is ready: jobs are not kept waiting for it.
7. A spare worker gets jobs only while no other that is ready has its model.
8. A worker suits a job if its model has the name that the job asks for (if any), knows the job's
   language (if any) and can do its task. A model with exactly that name is preferred to one in a
   directory of that name. Without a language, a multilingual model is preferred to an English-only
   one, which would turn German into invented English: "preferred" means that the job waits for the
   better worker as long as that is hopeful, be it busy, asleep or loading, and goes to another only
   when it is not. A worker counts by what was last heard of its model, also while it loads; one of
   which nothing was heard may suit any job, but is not preferred to another. If no worker that
   there is can do it, the job is refused, and the answer names the field.
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
from asrd.front.scheduling.needs import UNKNOWN, Skills
from asrd.front.scheduling.retry_after import RetryAfter
from asrd.front.scheduling.workers import UNUSABLE, Worker, Workers, WorkerState
from asrd.settings import FrontSettings


class UnknownKey(Exception):
    """A worker answered for a job that is not its own."""


class Scheduler:
    """Every method that takes `now` returns the actions to perform, in order."""

    def __init__(self, settings: FrontSettings) -> None:
        self.workers = Workers()
        self.draining = False
        self.retried = 0
        self.queue = FairQueue(settings)
        self.settings = settings
        self._deadlines = Deadlines()
        self._returns = RetryAfter()
        self._last_key = 0
        self._actions: list[Action] = []

    def __repr__(self) -> str:
        states = " ".join(f"{w.name}:{w.state}:{w.key or '-'}" for w in self.workers.values())
        return f"<Scheduler queue={len(self.queue)} [{states}]>"

    # --- what status shows -----------------------------------------------------------------

    def running(self) -> Iterator[Job]:
        return (worker.job for worker in self.workers.values() if worker.job is not None)

    @property
    def idle(self) -> bool:
        """No accepted job is without its answer."""
        return not len(self.queue) and next(self.running(), None) is None

    def next_deadline(self) -> float:
        """When `tick` has something to do at the latest; infinity if nothing is due."""
        job = self._deadlines.first()
        return math.inf if job is None else job.deadline

    def retry_after_ms(self, job: Job, now: float) -> int:
        """When a place should be free for the next one like this, which is refused."""
        ready = set(self.workers.serving())
        workers = [w.name for w in self.workers.suitable(job.needs) if w in ready]
        return round(1000 * self._returns.place(job.user, tuple(sorted(workers)), now))

    # --- jobs ------------------------------------------------------------------------------

    def submit(self, job: Job, now: float) -> list[Action]:
        failure = self._refusal(job, now)
        if failure is not None:
            self._actions.append(Refuse(job, failure))
            if failure.code is Code.BUSY:
                # With queue_max = 0 no job waits, so refused ones must wake the sleepers.
                self._wake([job])
            return self._settle(now)
        accept = Accept(job, len(self.queue))
        self.queue.append(job)
        self._set_wait(job, now)
        actions = self._settle(now)
        # Start comes before Accept: the worker has more to do before there is an answer. But the
        # end of a job that is overdue at once comes after its acceptance.
        actions.insert(0 if job.ended else len(actions), accept)
        return actions

    def end(self, job: Job, failure: Failure, now: float) -> list[Action]:
        """End a job from outside (its client cancelled it or left); one that has ended stays so."""
        if not job.ended:
            self._finish(job, failure)
        return self._settle(now)

    def tick(self, now: float) -> list[Action]:
        """End what is overdue."""
        return self._settle(now)

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
        return self._settle(now)

    # --- workers -----------------------------------------------------------------------------

    def worker_added(self, name: str, now: float) -> list[Action]:
        """New, or back before it was removed."""
        self.workers.setdefault(name, Worker(name)).retired = False
        return self._settle(now)

    def worker_retired(self, name: str, now: float) -> list[Action]:
        """Its socket is gone: give it nothing more. It may be removed once it runs nothing."""
        self.workers[name].retired = True
        return self._refuse_hopeless(now)

    def worker_removed(self, name: str, now: float) -> list[Action]:
        worker = self.workers.pop(name)
        self._take_back(worker, f"worker {name} was removed", now)
        return self._refuse_hopeless(now)

    def worker_loading(
        self, name: str, now: float, model: str | None = None, skills: Skills | None = None
    ) -> list[Action]:
        """`model` and `skills`: if its files have been looked at; before that, the last ones."""
        worker = self.workers[name]
        if worker.state not in UNUSABLE:
            worker.state = WorkerState.LOADING
        if model is not None and skills is not None:
            worker.model, worker.skills = model, skills
        return self._refuse_hopeless(now)

    def worker_ready(
        self,
        name: str,
        model: str,
        now: float,
        spare: bool = False,
        skills: Skills = UNKNOWN,
    ) -> list[Action]:
        worker = self.workers[name]
        worker.state, worker.reason, worker.woken = WorkerState.READY, None, False
        worker.model, worker.skills, worker.spare = model, skills, spare
        return self._refuse_hopeless(now)

    def worker_lost(self, name: str, how: str, now: float) -> list[Action]:
        """It died, or broke the protocol, which is the same. Its jobs are retried or end."""
        worker = self.workers[name]
        if worker.state not in UNUSABLE:
            worker.state = WorkerState.STARTING
        self._take_back(worker, how, now)
        return self._refuse_hopeless(now)

    def worker_left(self, name: str, asleep: bool, now: float) -> list[Action]:
        """It ended of its own will and started nothing that it has not answered: jobs that were on
        their way to it go back without counting as attempts, and have waited all the while."""
        worker = self.workers[name]
        if asleep or worker.state not in UNUSABLE:
            worker.state = WorkerState.ASLEEP if asleep else WorkerState.STARTING
        worker.woken = False
        job = worker.release()
        if job is not None:
            job.attempts -= 1
            self._requeue(job, job.waits_since)
        return self._refuse_hopeless(now)

    def worker_failed(self, name: str, state: WorkerState, reason: str, now: float) -> list[Action]:
        """It can't serve (FAILED: it said why; DOWN: nothing listens) until further notice."""
        worker = self.workers[name]
        worker.state, worker.reason = state, reason
        self._take_back(worker, reason, now)
        return self._refuse_hopeless(now)

    def job_done(self, name: str, key: int, result: object, now: float) -> list[Action]:
        """Raises UnknownKey if this worker does not run that."""
        job = self._answered(name, key)
        if job is not None:
            self._returns.job_ran(now - job.started_at)
            self._finish(job, result)
        return self._settle(now)

    def job_failed(
        self, name: str, key: int, failure: Failure, now: float, fatal: bool = False
    ) -> list[Action]:
        """`fatal`: the process is poisoned and about to end, which counts as a crash.

        Raises UnknownKey if this worker does not run that.
        """
        job = self._answered(name, key)
        if fatal:
            self.workers[name].state = WorkerState.STARTING
        if job is not None and fatal:
            self._crashed(job, failure.text, now)
        elif job is not None:
            self._finish(job, failure)
        return self._refuse_hopeless(now) if fatal else self._settle(now)

    # --- inside ------------------------------------------------------------------------------

    def _refusal(self, job: Job, now: float) -> Failure | None:
        if self.draining:
            return Failure(Code.SHUTTING_DOWN, "asrd is shutting down", retry_after_ms=1000)
        failure = self.workers.why_hopeless(job.needs)
        if failure is not None:
            return failure
        ambiguous = self.workers.why_ambiguous(job.needs)
        if ambiguous is not None:
            return Failure(Code.BAD_REQUEST, ambiguous)
        suitable = self.workers.suitable(job.needs)
        if any(worker.free and worker in suitable for worker in self.workers.serving()):
            return None
        full = self.queue.why_full(job)
        if full is None:
            return None
        return Failure(Code.BUSY, full, retry_after_ms=self.retry_after_ms(job, now))

    def _set_wait(self, job: Job, since: float) -> None:
        job.waits_since = since
        # A job that says how long it may take may wait as long, be it the first time or a retry;
        # but not while the service manager waits for the daemon to end, and loses its patience.
        patient = job.timeout is not None and not self.draining
        longest = math.inf if patient else self.settings.max_wait_seconds
        self._deadlines.set(job, since + longest)

    def _settle(self, now: float) -> list[Action]:
        """End what is overdue, start what can start, and hand out what is to be done."""
        while (job := self._deadlines.first()) is not None and job.deadline <= now:
            phase, waited = ("queue", "waited") if job.worker is None else ("run", "ran")
            since = job.arrival if job.worker is None else job.started_at
            text = f"it {waited} {now - since:.1f} s, longer than allowed"
            self._finish(job, Failure(Code.DEADLINE_EXCEEDED, text, phase=phase))
        self._dispatch(now)
        self._wake(self.queue)
        actions, self._actions = self._actions, []
        return actions

    def _dispatch(self, now: float) -> None:
        free = (worker for worker in self.workers.serving() if worker.free)
        for worker in sorted(free, key=lambda w: w.name):
            job = self.queue.first(self.workers.suits(worker))
            if job is None:
                self._returns.nobody_waits(worker.name)
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
        """One sleeper for each job that no busy worker took, and for which none was woken yet."""
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

    def _answered(self, name: str, key: int) -> Job | None:
        worker = self.workers[name]
        if key != worker.key:
            raise UnknownKey(f"worker {name} answered for job {key}, which it does not run")
        return worker.release()

    def _take_back(self, worker: Worker, how: str, now: float) -> None:
        worker.woken = False
        job = worker.release()
        if job is not None:
            self._crashed(job, how, now)

    def _crashed(self, job: Job, how: str, now: float) -> None:
        if job.attempts >= self.settings.max_attempts:
            text = f"its worker died each time it was tried ({job.attempts}); last: {how}"
            self._finish(job, Failure(Code.WORKER_CRASHED, text))
        else:
            self.retried += 1
            self._requeue(job, now)

    def _requeue(self, job: Job, since: float) -> None:
        job.worker = None
        self.queue.put_back(job)
        self._set_wait(job, since)

    def _refuse_hopeless(self, now: float) -> list[Action]:
        for job in list(self.queue):
            failure = self.workers.why_hopeless(job.needs)
            if failure is not None:
                self._finish(job, failure)
        return self._settle(now)
