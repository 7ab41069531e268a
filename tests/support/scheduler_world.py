"""An independent model of the scheduler, checked after each of its calls.

`World` drives a Scheduler and keeps its own, naive books: which jobs wait, which run where, which
must have ended and how. Every method is one event, and the scheduler's actions must fit the books.
It shares no code with the scheduler but the records.
"""

import math
from dataclasses import dataclass

import pytest

from asrd.errors import Code
from asrd.front.scheduling import actions
from asrd.front.scheduling.actions import Abandon, Accept, Failure, Finish, Refuse, Start, Wake
from asrd.front.scheduling.job import Job, Needs
from asrd.front.scheduling.scheduler import Scheduler, UnknownKey
from asrd.front.scheduling.workers import UNKNOWN, Skills, WorkerState
from asrd.settings import FrontSettings
from asrd.wire.peer import User

HOPELESS = {"failed", "down"}
ANY = Needs()


@dataclass
class BookedWorker:
    state: str = "starting"
    retired: bool = False
    model: str | None = None
    skills: Skills = UNKNOWN
    spare: bool = False
    # The key and the number of its job; a job that has ended leaves the key.
    key: int | None = None
    number: int | None = None

    @property
    def ready(self) -> bool:
        return self.state == "ready" and not self.retired

    @property
    def hopeful(self) -> bool:
        return self.state not in HOPELESS and not self.retired

    @property
    def multilingual(self) -> bool:
        return len(self.skills.languages or ()) > 1

    def fails(self) -> None:
        """Its process is gone; only a ready one ends HOPELESS."""
        if self.state not in HOPELESS:
            self.state = "starting"

    def is_named(self, asked: str | None) -> bool:
        if asked is None or self.model is None:
            return True
        return asked.lower() in (self.model.lower(), self.model.lower().split("/")[-1])

    def able(self, needs: Needs) -> bool:
        known, skills = self.skills.languages, self.skills
        enough = known is None or (
            needs.language in (None, *known)
            and skills.translate >= needs.translate
            and skills.word_timestamps >= needs.word_timestamps
        )
        return self.is_named(needs.model) and enough

    def fits(self, job: Job) -> bool:
        return self.hopeful and self.able(job.needs)

    def beats(self, other: "BookedWorker", needs: Needs) -> bool:
        """Returns True if this one is preferred, of two that could run it."""
        if needs.model is not None and (self.model == needs.model) != (other.model == needs.model):
            return self.model == needs.model
        return needs.language is None and self.multilingual and not other.multilingual


@dataclass
class BookedJob:
    job: Job
    deadline: float
    attempts: int = 0
    # `waiting`, `retrying` (waiting, after it was started), `running`, `ended`
    state: str = "waiting"
    where: tuple[str, int] | None = None
    # The end of its wait, unless it is started and its worker dies.
    wait_limit: float = 0.0

    @property
    def waits(self) -> bool:
        return self.state in ("waiting", "retrying")


class World:
    def __init__(self, settings: FrontSettings) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings)
        self.now = 1000.0
        self.workers: dict[str, BookedWorker] = {}
        self.jobs: dict[int, BookedJob] = {}
        self.draining = False
        self.keys: set[int] = set()
        self.served: dict[User, int] = {}
        self.submitted = 0
        # The ends that the next actions must hold: a job's number, and its outcome.
        self._due: dict[int, object] = {}

    # --- events -----------------------------------------------------------------------------

    def submit(
        self,
        uid: int = 1,
        needs: Needs = ANY,
        timeout: float | None = None,
        size: int = 1,
        seconds: float = 1.0,
    ) -> None:
        self.submitted += 1
        job = Job(uid, self.now, needs, size, seconds, timeout, request=self.submitted)
        expected = self._expected_refusal(job)
        depth = len(self._waiting())
        found = self.scheduler.submit(job, self.now)
        if expected is None:
            assert found.pop(0 if job.ended else -1) == Accept(job, depth)
            limit = self._wait_limit(job)
            self.jobs[self.submitted] = BookedJob(job, limit, wait_limit=limit)
            self._check(found)
            return
        refusal = found.pop(0)
        assert isinstance(refusal, Refuse) and refusal.job is job
        assert refusal.failure.code == expected, (refusal, expected)
        assert (refusal.failure.retry_after_ms is not None) == expected.retryable
        busy = [job] if expected is Code.BUSY else []
        self._check(found, busy)
        self._check_wakes(busy)

    def end(self, number: int) -> None:
        booked, failure = self.jobs[number], Failure(Code.CANCELLED, "cancelled")
        if booked.state != "ended":
            self._due[number] = failure
        self._check(self.scheduler.end(booked.job, failure, self.now))

    def tick(self) -> None:
        self._check(self.scheduler.tick(self.now))

    def drain(self) -> None:
        first, self.draining = not self.draining, True
        for booked in self.jobs.values() if first else ():
            if booked.state != "ended" and booked.job.timeout is not None:
                booked.wait_limit = self._wait_limit(booked.job)
                if booked.waits:
                    booked.deadline = booked.wait_limit
        self._check(self.scheduler.drain(self.now))

    def add(self, name: str) -> None:
        self.workers.setdefault(name, BookedWorker()).retired = False
        self._check(self.scheduler.worker_added(name, self.now))

    def retire(self, name: str) -> None:
        self.workers[name].retired = True
        self._check(self.scheduler.worker_retired(name, self.now))

    def remove(self, name: str) -> None:
        self._crash(self.workers.pop(name))
        self._check(self.scheduler.worker_removed(name, self.now))

    def loading(self, name: str, model: str, skills: Skills | None) -> None:
        """Without `skills` it has not looked at its model's files."""
        worker = self.workers[name]
        if worker.state not in HOPELESS:
            worker.state = "loading"
        if skills is not None:
            worker.model, worker.skills = model, skills
        self._check(self.scheduler.worker_loading(name, model, self.now, skills))

    def ready(
        self, name: str, model: str = "a", spare: bool = False, skills: Skills = UNKNOWN
    ) -> None:
        worker = self.workers[name]
        worker.state, worker.model = "ready", model
        worker.spare, worker.skills = spare, skills
        self._check(self.scheduler.worker_ready(name, model, self.now, spare, skills))

    def lost(self, name: str) -> None:
        self.workers[name].fails()
        self._crash(self.workers[name])
        self._check(self.scheduler.worker_lost(name, "it died", self.now))

    def left(self, name: str, asleep: bool) -> None:
        worker = self.workers[name]
        worker.fails()
        if asleep:
            worker.state = "asleep"
        if worker.number is not None:
            booked = self.jobs[worker.number]
            booked.attempts -= 1
            self._put_back(booked, booked.wait_limit)
        worker.key = worker.number = None
        self._check(self.scheduler.worker_left(name, asleep, self.now))

    def failed(self, name: str, down: bool = False) -> None:
        state = WorkerState.DOWN if down else WorkerState.FAILED
        self.workers[name].state = state.value
        self._crash(self.workers[name])
        self._check(self.scheduler.worker_failed(name, state, "no model", self.now))

    def done(self, name: str) -> None:
        key, number = self._answered(name)
        result = f"text of {number}"
        if number is not None:
            self._due[number] = result
        self._check(self.scheduler.job_done(name, key, result, self.now))

    def job_failed(self, name: str, fatal: bool = False) -> None:
        failure = Failure(Code.OUT_OF_MEMORY, "no memory")
        if fatal:
            key = self.workers[name].key or 0
            self.workers[name].fails()
            self._crash(self.workers[name])
        else:
            key, number = self._answered(name)
            if number is not None:
                self._due[number] = failure
        self._check(self.scheduler.job_failed(name, key, failure, self.now, fatal))

    def breach(self, name: str, key: int) -> None:
        """An answer for a job that the worker does not run changes nothing."""
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            self.scheduler.job_done(name, key, "stolen", self.now)
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            self.scheduler.job_failed(name, key, Failure(Code.INTERNAL, ""), self.now)
        self.tick()

    # --- what is expected -------------------------------------------------------------------

    def _answered(self, name: str) -> tuple[int, int | None]:
        worker = self.workers[name]
        key, number = worker.key or 0, worker.number
        worker.key = worker.number = None
        return key, number

    def _takes(self, worker: BookedWorker) -> bool:
        """Returns True if it must run a job if there is one for it."""
        reserved = worker.spare and any(
            other.ready
            and not other.spare
            and (other.model, other.skills) == (worker.model, worker.skills)
            for other in self.workers.values()
        )
        return worker.ready and not reserved and worker.key is None

    def _waiting(self) -> list[int]:
        return [number for number, booked in self.jobs.items() if booked.waits]

    def _expected_refusal(self, job: Job) -> Code | None:
        if self.draining:
            return Code.SHUTTING_DOWN
        best = self._best(job)
        if not best:
            return self._hopeless_code(job)
        if job.needs.model is not None and len({worker.model for worker in best} - {None}) > 1:
            return Code.BAD_REQUEST
        if any(self._takes(worker) for worker in best):
            return None
        waiting = [b.job for b in self.jobs.values() if b.state == "waiting"]
        return Code.BUSY if self._over_a_limit([*waiting, job]) else None

    def _over_a_limit(self, jobs: list[Job]) -> bool:
        limits, users = self.settings, [job.user for job in jobs]
        return (
            len(jobs) > limits.queue_max
            or 0 < limits.queue_max_per_user < max(map(users.count, users), default=0)
            or (len(jobs) > 1 and sum(job.size for job in jobs) > limits.queue_max_bytes)
            or (len(jobs) > 1 and sum(j.seconds for j in jobs) > limits.queue_max_audio_seconds)
        )

    def _best(self, job: Job) -> list[BookedWorker]:
        """Returns the workers that it may run on: none that could is preferred to them."""
        fit = [worker for worker in self.workers.values() if worker.fits(job)]
        return [w for w in fit if not any(other.beats(w, job.needs) for other in fit)]

    def _suits(self, worker: BookedWorker, job: Job) -> bool:
        return any(worker is best for best in self._best(job))

    def _hopeless_code(self, job: Job) -> Code:
        hopeful = [worker for worker in self.workers.values() if worker.hopeful]
        gone = [worker for worker in self.workers.values() if not worker.hopeful]
        if not hopeful or any(w.model is not None and w.able(job.needs) for w in gone):
            return Code.UNAVAILABLE
        named = any(worker.is_named(job.needs.model) for worker in hopeful)
        return Code.BAD_REQUEST if named else Code.MODEL_NOT_FOUND

    def _wait_limit(self, job: Job) -> float:
        longest = self.now + self.settings.max_wait_seconds
        if job.timeout is None:
            return longest
        own = job.arrival + job.timeout
        return min(own, longest) if self.draining else own

    def _crash(self, worker: BookedWorker) -> None:
        number, worker.key, worker.number = worker.number, None, None
        if number is None:
            return
        booked = self.jobs[number]
        if booked.attempts >= self.settings.max_attempts:
            booked.where = None
            self._due[number] = Code.WORKER_CRASHED
        else:
            self._put_back(booked, self._wait_limit(booked.job))

    def _put_back(self, booked: BookedJob, limit: float) -> None:
        booked.state, booked.where = "retrying", None
        booked.deadline = booked.wait_limit = limit

    # --- the actions ------------------------------------------------------------------------

    def _check(self, found: list[actions.Action], busy: list[Job] | None = None) -> None:
        self._expect_ends()
        unwanted: list[Abandon] = []
        for action in found:
            match action:
                case Finish(job, outcome):
                    unwanted += self._finished(job, outcome)
                case Start(job, worker, key):
                    self._started(job, worker, key)
                case Wake(worker):
                    self._woken(worker, busy or [])
                case _:
                    assert isinstance(action, Abandon), f"unexpected {action}"
        assert not self._due, f"not ended: {self._due}"
        assert [action for action in found if isinstance(action, Abandon)] == unwanted
        self._check_state()

    def _expect_ends(self) -> None:
        for number, booked in self.jobs.items():
            if number in self._due or booked.state == "ended":
                continue
            if booked.waits and not self._best(booked.job):
                self._due[number] = self._hopeless_code(booked.job)
            elif booked.deadline <= self.now:
                self._due[number] = Code.DEADLINE_EXCEEDED

    def _finished(self, job: Job, outcome: object) -> list[Abandon]:
        """Returns what must be abandoned now: the run of the worker that still has it."""
        booked = self.jobs[job.request]
        assert booked.job is job and booked.state != "ended", f"ended twice: {job}"
        expected = self._due.pop(job.request)
        if isinstance(expected, Code):
            assert isinstance(outcome, Failure) and outcome.code is expected, (outcome, expected)
            phase = "queue" if booked.waits else "run"
            overdue = expected is Code.DEADLINE_EXCEEDED
            assert outcome.phase == (phase if overdue else None)
        else:
            assert outcome == expected
        booked.state, where, booked.where = "ended", booked.where, None
        if where is None or self.workers[where[0]].number is None:
            return []
        self.workers[where[0]].number = None
        return [Abandon(*where)]

    def _started(self, job: Job, name: str, key: int) -> None:
        booked, worker = self.jobs[job.request], self.workers[name]
        assert booked.waits, f"started while it is {booked.state}"
        assert self._takes(worker) and self._suits(worker, job), f"started on {worker}"
        assert key not in self.keys, "a key was used twice"
        assert job.request == self._whose_turn(worker, job), "it was not its turn"
        self.keys.add(key)
        self.served[job.user] = max(self.served.values(), default=0) + 1
        booked.state, booked.where = "running", (name, key)
        booked.attempts += 1
        assert booked.attempts == job.attempts <= self.settings.max_attempts
        worker.key, worker.number = key, job.request
        booked.deadline = self.now + self.settings.max_run_seconds
        if job.timeout is not None:
            booked.deadline = min(booked.deadline, job.arrival + job.timeout)

    def _whose_turn(self, worker: BookedWorker, chosen: Job) -> int:
        """Returns the job that must be next on this worker; where several may, the chosen one."""
        fitting = [n for n in self._waiting() if self._suits(worker, self.jobs[n].job)]
        retries = [n for n in fitting if self.jobs[n].state == "retrying"]
        if retries:
            return chosen.request if chosen.request in retries else retries[0]
        longest_ago = min(self.served.get(self.jobs[n].job.user, 0) for n in fitting)
        if self.served.get(chosen.user, 0) > longest_ago:
            return -1
        return next(n for n in fitting if self.jobs[n].job.user == chosen.user)

    def _woken(self, name: str, busy: list[Job]) -> None:
        worker = self.workers[name]
        assert worker.state == "asleep"
        wanting = [self.jobs[n].job for n in self._waiting()] + busy
        assert any(self._suits(worker, job) for job in wanting), "woken for nothing"
        worker.state = "starting"

    # --- what holds at all times ------------------------------------------------------------

    def _check_state(self) -> None:
        scheduler = self.scheduler
        waiting = [self.jobs[number] for number in self._waiting()]
        assert {job.request for job in scheduler.queue} == set(self._waiting())
        assert len(scheduler.queue) == len(waiting)
        for booked in waiting:
            free = [worker for worker in self._best(booked.job) if self._takes(worker)]
            assert not free, f"{booked.job} waits though {free} could run it"
        assert not self._over_a_limit([b.job for b in waiting if b.state == "waiting"])
        assert scheduler.workers.keys() == self.workers.keys()
        for name, worker in self.workers.items():
            seen = scheduler.workers[name]
            number = None if seen.job is None else seen.job.request
            books = BookedWorker(
                seen.state, seen.retired, seen.model, seen.skills, seen.spare, seen.key, number
            )
            assert books == worker
        alive = [booked for booked in self.jobs.values() if booked.state != "ended"]
        assert scheduler.idle == (not alive)
        assert scheduler.next_deadline() == min((b.deadline for b in alive), default=math.inf)
        assert scheduler.next_deadline() > self.now
        self._check_wakes([booked.job for booked in waiting])

    def _check_wakes(self, jobs: list[Job]) -> None:
        """No client that waits, or was asked to come again, finds all its workers asleep."""
        for job in jobs:
            able = self._best(job)
            assert not able or any(worker.state != "asleep" for worker in able), f"{job} waits"

    def check_all_answered(self) -> None:
        """Every accepted job has ended, and the scheduler keeps nothing of it."""
        assert all(booked.state == "ended" for booked in self.jobs.values())
        scheduler, queue = self.scheduler, self.scheduler.queue
        assert scheduler.idle and scheduler.next_deadline() == math.inf
        assert not (scheduler._deadlines or queue._lanes or queue._retries)
        assert not queue._waiting._of_user
        assert (queue._waiting.used, queue._bytes) == (0, 0) and abs(queue._seconds) < 1e-6
