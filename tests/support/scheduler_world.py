"""An independent account of what the scheduler must do, checked after each of its calls.

`World` drives a Scheduler and keeps its own, naive books beside it: who waits, who runs where, who
must have ended and how. Every method is one event; whatever the scheduler then says must fit the
books. It shares no code with the scheduler but the records.
"""

import math
from dataclasses import dataclass, field

import pytest

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
from asrd.front.scheduling.job import Job, Needs
from asrd.front.scheduling.scheduler import Scheduler, UnknownKey
from asrd.front.scheduling.workers import UNKNOWN, Skills, WorkerState
from asrd.settings import FrontSettings
from asrd.wire.peer import User

HOPELESS = {"failed", "down"}
ANY = Needs()


@dataclass(frozen=True)
class BookedSkills:
    languages: tuple[str, ...]
    translate: bool = True
    words: bool = True

    @property
    def many(self) -> bool:
        return len(self.languages) > 1

    def enough_for(self, needs: Needs) -> bool:
        return (
            needs.language in (None, *self.languages)
            and self.translate >= needs.translate
            and self.words >= needs.word_timestamps
        )

    def told(self) -> Skills:
        return Skills(frozenset(self.languages), self.translate, self.words)


@dataclass
class BookedWorker:
    state: str = "starting"
    retired: bool = False
    model: str | None = None
    # None: nothing is known of its skills.
    skills: BookedSkills | None = None
    spare: bool = False
    # Key to job; a job that has ended but still takes its slot stands there as None.
    held: dict[int, int | None] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state == "ready" and not self.retired

    @property
    def full(self) -> bool:
        return bool(self.held)

    @property
    def hopeful(self) -> bool:
        return self.state not in HOPELESS and not self.retired

    def is_named(self, asked: str | None) -> bool:
        if asked is None or self.model is None:
            return True
        return asked.lower() in (self.model.lower(), self.model.lower().split("/")[-1])

    def able(self, needs: Needs) -> bool:
        return self.is_named(needs.model) and (self.skills is None or self.skills.enough_for(needs))

    def fits(self, job: Job) -> bool:
        return self.hopeful and self.able(job.needs)

    def beats(self, other: "BookedWorker", needs: Needs) -> bool:
        """Both could run it: whether this one is preferred."""
        if needs.model is not None and (self.model == needs.model) != (other.model == needs.model):
            return self.model == needs.model
        many = [worker.skills is not None and worker.skills.many for worker in (self, other)]
        return needs.language is None and many == [True, False]


@dataclass
class BookedJob:
    job: Job
    deadline: float
    attempts: int = 0
    # `waiting`, `retrying` (waiting, having been started before), `running`, `ended`
    state: str = "waiting"
    where: tuple[str, int] | None = None
    outcome: object = None
    # When it has waited for too long, unless it was started and its worker died since.
    wait_limit: float = 0.0

    @property
    def waits(self) -> bool:
        return self.state in ("waiting", "retrying")


class World:
    def __init__(self, limits: FrontSettings) -> None:
        self.limits = limits
        self.scheduler = Scheduler(limits)
        self.now = 1000.0
        self.workers: dict[str, BookedWorker] = {}
        self.jobs: dict[int, BookedJob] = {}
        self.refused = 0
        self.draining = False
        self.keys: set[int] = set()
        self.served: dict[User, int] = {}
        self._submitted = 0
        # What the next actions must hold: job to its outcome.
        self._due: dict[int, object] = {}

    # --- events -----------------------------------------------------------------------------

    def submit(
        self,
        uid: int = 1,
        needs: Needs = ANY,
        timeout: float | None = None,
        size: int = 1,
        seconds: float = 1.0,
    ) -> int | None:
        """Returns the job's number, None if it was refused."""
        self._submitted += 1
        number = self._submitted
        job = Job(uid, self.now, needs, size, seconds, timeout, request=number)
        expected = self._expected_refusal(job)
        depth = len(self._waiting())
        actions = self.scheduler.submit(job, self.now)
        if expected is not None:
            refusal = actions.pop(0)
            assert isinstance(refusal, Refuse) and refusal.job is job
            assert refusal.failure.code == expected, (refusal, expected)
            assert (refusal.failure.retry_after_ms is not None) == expected.retryable
            self.refused += 1
            self._check(actions, refused=job if expected is Code.BUSY else None)
            if expected is Code.BUSY:
                self._check_wakes([job])
            return None
        assert actions.pop(0 if job.ended else -1) == Accept(job, depth)
        limit = self._wait_limit(job)
        self.jobs[number] = BookedJob(job, limit, wait_limit=limit)
        self._check(actions)
        return number

    def end(self, number: int) -> None:
        booked = self.jobs[number]
        failure = Failure(Code.CANCELLED, "cancelled")
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

    def loading(
        self, name: str, model: str | None = None, skills: BookedSkills | None = None
    ) -> None:
        """With `skills` it has looked at its model's files."""
        worker = self.workers[name]
        if worker.state not in HOPELESS:
            worker.state = "loading"
        if skills is None:
            self._check(self.scheduler.worker_loading(name, "unread", self.now))
        else:
            worker.model, worker.skills = model, skills
            self._check(self.scheduler.worker_loading(name, model or "", self.now, skills.told()))

    def ready(
        self,
        name: str,
        model: str = "a",
        spare: bool = False,
        skills: BookedSkills | None = None,
    ) -> None:
        worker = self.workers[name]
        worker.state, worker.model = "ready", model
        worker.spare, worker.skills = spare, skills
        told = UNKNOWN if skills is None else skills.told()
        self._check(self.scheduler.worker_ready(name, model, self.now, spare, told))

    def lost(self, name: str) -> None:
        worker = self.workers[name]
        if worker.state not in HOPELESS:
            worker.state = "starting"
        self._crash(worker)
        self._check(self.scheduler.worker_lost(name, "it died", self.now))

    def left(self, name: str, asleep: bool) -> None:
        worker = self.workers[name]
        if asleep:
            worker.state = "asleep"
        elif worker.state not in HOPELESS:
            worker.state = "starting"
        for number in filter(None, worker.held.values()):
            self.jobs[number].attempts -= 1
            self._put_back(number, self.jobs[number].wait_limit)
        worker.held.clear()
        self._check(self.scheduler.worker_left(name, asleep, self.now))

    def failed(self, name: str, down: bool = False) -> None:
        state = WorkerState.DOWN if down else WorkerState.FAILED
        self.workers[name].state = state.value
        self._crash(self.workers[name])
        self._check(self.scheduler.worker_failed(name, state, "no model", self.now))

    def done(self, name: str, key: int) -> None:
        number = self.workers[name].held.pop(key)
        result = f"text of {number}"
        if number is not None:
            self._due[number] = result
        self._check(self.scheduler.job_done(name, key, result, self.now))

    def job_failed(self, name: str, key: int, fatal: bool = False) -> None:
        worker = self.workers[name]
        number = worker.held.pop(key)
        failure = Failure(Code.OUT_OF_MEMORY, "no memory")
        if fatal:
            worker.state = "starting"
        if number is not None:
            if fatal:
                self._crash_one(number)
            else:
                self._due[number] = failure
        self._check(self.scheduler.job_failed(name, key, failure, self.now, fatal))

    def breach(self, name: str, key: int) -> None:
        """An answer for a job that this worker does not run changes nothing."""
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            self.scheduler.job_done(name, key, "stolen", self.now)
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            self.scheduler.job_failed(name, key, Failure(Code.INTERNAL, ""), self.now)
        self.tick()

    # --- what is expected -------------------------------------------------------------------

    def _serves(self, worker: BookedWorker) -> bool:
        needed = not worker.spare or not any(
            other.ready
            and not other.spare
            and (other.model, other.skills) == (worker.model, worker.skills)
            for other in self.workers.values()
        )
        return worker.ready and needed

    def _takes(self, worker: BookedWorker) -> bool:
        """Whether it should be running something if it can."""
        return self._serves(worker) and not worker.full

    def _waiting(self) -> list[int]:
        return [number for number, booked in self.jobs.items() if booked.waits]

    def _expected_refusal(self, job: Job) -> Code | None:
        if self.draining:
            return Code.SHUTTING_DOWN
        if not any(worker.fits(job) for worker in self.workers.values()):
            return self._hopeless_code(job)
        models = {worker.model for worker in self._best(job)} - {None}
        if job.needs.model is not None and len(models) > 1:
            return Code.BAD_REQUEST
        if any(self._takes(worker) for worker in self._best(job)):
            return None
        limits = self.limits
        bounded = [b.job for b in self.jobs.values() if b.state == "waiting"]
        mine = sum(other.user == job.user for other in bounded)
        full = (
            len(bounded) >= limits.queue_max
            or 0 < limits.queue_max_per_user <= mine
            or (bounded and sum(b.size for b in bounded) + job.size > limits.queue_max_bytes)
            or (
                bounded
                and sum(b.seconds for b in bounded) + job.seconds > limits.queue_max_audio_seconds
            )
        )
        return Code.BUSY if full else None

    def _best(self, job: Job) -> list[BookedWorker]:
        """Those that it may run on: none that could do it is preferred to them."""
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
        longest = self.now + self.limits.max_wait_seconds
        if job.timeout is None:
            return longest
        own = job.arrival + job.timeout
        return min(own, longest) if self.draining else own

    def _crash(self, worker: BookedWorker) -> None:
        held = [number for number in worker.held.values() if number is not None]
        worker.held.clear()
        for number in held:
            self._crash_one(number)

    def _crash_one(self, number: int) -> None:
        if self.jobs[number].attempts >= self.limits.max_attempts:
            self.jobs[number].where = None
            self._due[number] = Code.WORKER_CRASHED
        else:
            self._put_back(number, self._wait_limit(self.jobs[number].job))

    def _put_back(self, number: int, limit: float) -> None:
        booked = self.jobs[number]
        booked.state, booked.where = "retrying", None
        booked.deadline = booked.wait_limit = limit

    # --- what the scheduler said ------------------------------------------------------------

    def _check(self, actions: list[Action], refused: Job | None = None) -> None:
        self._expect_ends()
        unwanted: list[tuple[str, int]] = []
        abandoned: list[tuple[str, int]] = []
        for action in actions:
            match action:
                case Finish(job, outcome):
                    unwanted += self._finished(job, outcome)
                case Abandon(worker, key):
                    abandoned.append((worker, key))
                case Start(job, worker, key):
                    self._started(job, worker, key)
                case Wake(worker):
                    self._woken(worker, refused)
                case _:
                    raise AssertionError(f"unexpected {action}")
        assert not self._due, f"not ended: {self._due}"
        assert abandoned == unwanted
        self._check_state()

    def _expect_ends(self) -> None:
        for number, booked in self.jobs.items():
            if number in self._due or booked.state == "ended":
                continue
            if booked.waits and not any(w.fits(booked.job) for w in self.workers.values()):
                self._due[number] = self._hopeless_code(booked.job)
            elif booked.deadline <= self.now:
                self._due[number] = Code.DEADLINE_EXCEEDED

    def _finished(self, job: Job, outcome: object) -> list[tuple[str, int]]:
        """Returns what must be abandoned now: the worker and key that still run it."""
        booked = self.jobs[job.request]
        assert booked.job is job and booked.state != "ended", f"ended twice: {job}"
        expected = self._due.pop(job.request)
        if isinstance(expected, Code):
            assert isinstance(outcome, Failure) and outcome.code is expected, (outcome, expected)
            phase = None
            if expected is Code.DEADLINE_EXCEEDED:
                phase = "queue" if booked.waits else "run"
            assert outcome.phase == phase
        else:
            assert outcome == expected
        booked.state, booked.outcome = "ended", outcome
        where, booked.where = booked.where, None
        if where is None or self.workers[where[0]].held.get(where[1]) is None:
            return []
        self.workers[where[0]].held[where[1]] = None
        return [where]

    def _started(self, job: Job, name: str, key: int) -> None:
        booked, worker = self.jobs[job.request], self.workers[name]
        assert booked.waits, f"started while it is {booked.state}"
        assert self._takes(worker) and self._suits(worker, job), f"started on {worker}"
        assert key not in self.keys, "a key was used twice"
        assert booked.job.request == self._whose_turn(worker, job), "it was not its turn"
        self.keys.add(key)
        self.served[job.user] = max(self.served.values(), default=0) + 1
        booked.state, booked.where = "running", (name, key)
        booked.attempts += 1
        assert booked.attempts == job.attempts <= self.limits.max_attempts
        worker.held[key] = job.request
        booked.deadline = self.now + self.limits.max_run_seconds
        if job.timeout is not None:
            booked.deadline = min(booked.deadline, job.arrival + job.timeout)

    def _whose_turn(self, worker: BookedWorker, chosen: Job) -> int:
        """The job that must be next on this worker; where several may, the chosen one."""
        fitting = [n for n in self._waiting() if self._suits(worker, self.jobs[n].job)]
        retries = [n for n in fitting if self.jobs[n].state == "retrying"]
        if retries:
            return chosen.request if chosen.request in retries else retries[0]
        longest_ago = min(self.served.get(self.jobs[n].job.user, 0) for n in fitting)
        users = {self.jobs[n].job.user for n in fitting}
        entitled = {uid for uid in users if self.served.get(uid, 0) == longest_ago}
        if chosen.user not in entitled:
            return -1
        return next(n for n in fitting if self.jobs[n].job.user == chosen.user)

    def _woken(self, name: str, refused: Job | None) -> None:
        worker = self.workers[name]
        assert worker.state == "asleep"
        wanting = [self.jobs[n].job for n in self._waiting()] + ([refused] if refused else [])
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
        self._check_bounds([booked.job for booked in waiting if booked.state == "waiting"])
        for name, worker in self.workers.items():
            seen = scheduler.workers[name]
            assert (seen.state, seen.retired, seen.model) == (
                (worker.state, worker.retired, worker.model)
            )
            assert seen.skills == (UNKNOWN if worker.skills is None else worker.skills.told())
            held = {} if seen.key is None else {seen.key: seen.job and seen.job.request}
            assert held == worker.held
        assert scheduler.workers.keys() == self.workers.keys()
        alive = [booked for booked in self.jobs.values() if booked.state != "ended"]
        assert scheduler.idle == (not alive)
        assert scheduler.next_deadline() == min((b.deadline for b in alive), default=math.inf)
        assert scheduler.next_deadline() > self.now
        self._check_wakes([booked.job for booked in waiting])

    def _check_bounds(self, bounded: list[Job]) -> None:
        limits = self.limits
        assert len(bounded) <= limits.queue_max
        users = {job.user for job in bounded}
        if limits.queue_max_per_user:
            for uid in users:
                assert sum(job.user == uid for job in bounded) <= limits.queue_max_per_user
        if len(bounded) > 1:
            assert sum(job.size for job in bounded) <= limits.queue_max_bytes
            assert sum(job.seconds for job in bounded) <= limits.queue_max_audio_seconds

    def _check_wakes(self, jobs: list[Job]) -> None:
        """Whoever waits, or was told to come again, does not find all asleep for ever."""
        for job in jobs:
            able = self._best(job)
            asleep = [worker for worker in able if worker.state == "asleep"]
            assert not able or len(asleep) < len(able), f"{job} waits, and all sleep"

    def check_all_answered(self) -> None:
        """Every accepted job has ended, and nothing of it is kept."""
        assert all(booked.state == "ended" for booked in self.jobs.values())
        scheduler, queue = self.scheduler, self.scheduler.queue
        assert scheduler.idle and scheduler.next_deadline() == math.inf
        assert (
            not scheduler._deadlines
            and not queue._lanes
            and not queue._waiting._of_user
            and not queue._retries
        )
        assert (queue._waiting.used, queue._bytes) == (0, 0) and abs(queue._seconds) < 1e-6
