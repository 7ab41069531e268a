"""An independent model of the scheduler, checked after each of its calls.

`World` drives a Scheduler and keeps its own, naive books: which jobs wait, which run where, which
must have ended and how. Every method is one event, and the scheduler's actions must fit the books.
It shares no code with the scheduler but the records. It takes the scheduler's estimates of work as
they are, and its predictions within bounds.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

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
COMING = {"starting", "loading", "asleep"}
ANY = Needs()
# No user is ahead of another one by more work.
CREDIT = 10.0
# A worker's reports come at least so often.
REPORT = 0.5


@dataclass
class BookedWorker:
    state: str = "starting"
    retired: bool = False
    model: str | None = None
    skills: Skills = UNKNOWN
    spare: bool = False
    slots: int = 1
    longest: float = 0.0
    failed_loads: int = 0
    # The numbers of its jobs by key, also of those that have ended.
    jobs: dict[int, int] = field(default_factory=dict)

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

    def could(self, job: Job, needs: Needs) -> bool:
        return self.able(needs) and self.longest in (0, max(self.longest, job.seconds))

    def beats(self, other: "BookedWorker", needs: Needs) -> bool:
        """Returns True if this one is preferred, of two that could run it."""
        if needs.model is not None and (self.model == needs.model) != (other.model == needs.model):
            return self.model == needs.model
        return needs.language is None and self.multilingual and not other.multilingual


@dataclass
class BookedJob:
    job: Job
    attempts: int = 0
    deaths: int = 0
    kept: float = 0.0
    # `waiting`, `retrying` (waiting, after it was started), `running`, `ended`
    state: str = "waiting"
    where: tuple[str, int] | None = None
    # Of a job that waits: the longest wait, also while a model loads, and the times at which it was
    # held up (True) or not.
    longest_wait: float = 0.0
    longest_load: float = 0.0
    waits: list[tuple[float, bool]] = field(default_factory=list)
    # Of a job that runs: its start, and its last work.
    started: float = 0.0
    worked_at: float = 0.0
    # Its last report: seconds of work, and of audio. Estimated work that is left.
    reported: float = 0.0
    done: float = 0.0
    work: float = 0.0
    planned: float = 0.0

    @property
    def waiting(self) -> bool:
        return self.state in ("waiting", "retrying")

    @property
    def long(self) -> bool:
        left = self.job.seconds - self.done
        return left > 30 if self.job.seconds else self.job.size > 6 * 2**20 or self.done > 30


class World:
    def __init__(self, settings: FrontSettings) -> None:
        self.settings = settings
        self.scheduler = Scheduler(settings)
        self.now = 1000.0
        self.workers: dict[str, BookedWorker] = {}
        self.jobs: dict[int, BookedJob] = {}
        # The numbers of the jobs that were given back, in their order.
        self.returned: list[int] = []
        self.draining = False
        self.keys: set[int] = set()
        self.submitted = 0
        # Of each user with jobs: the work that it started with, and its jobs since then.
        self.began: dict[User, tuple[float, list[int]]] = {}
        # The work of users who came and left since there was last no job.
        self.away: dict[User, float] = {}
        # The most that a window has cost.
        self.dearest = 0.0
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
        step: bool = False,
    ) -> None:
        self.submitted += 1
        job = Job(uid, self.now, needs, size, seconds, timeout, request=self.submitted, step=step)
        expected, depth = self._expected_refusal(job), self._depth()
        predicted = expected is None and not step and not self._has_place(job)
        found = self.scheduler.submit(job, self.now)
        refusal = next((one for one in found if isinstance(one, Refuse)), None)
        if refusal is not None and predicted:
            self._check_prediction(job, refusal.failure)
            expected = Code.BUSY
        if expected is None:
            assert found.pop(0 if job.ended else -1) == Accept(job, depth)
            self.jobs[self.submitted] = BookedJob(job)
            self._begin_account(job)
            self._begin_wait(self.submitted)
            self._check(found)
            return
        assert refusal is not None and refusal is found.pop(0) and refusal.job is job
        assert refusal.failure.code == expected, (refusal, expected)
        later = refusal.failure.retry_after_ms
        assert (later is not None) == expected.retryable
        assert later is None or 50 <= later <= 3_600_000
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
        for number in self._waiting() if first else ():
            if self.jobs[number].job.timeout is not None:
                self._begin_wait(number)
        self._check(self.scheduler.drain(self.now))

    def add(self, name: str) -> None:
        self.workers.setdefault(name, BookedWorker()).retired = False
        self._check(self.scheduler.worker_added(name, self.now))

    def retire(self, name: str) -> None:
        self.workers[name].retired = True
        self._check(self.scheduler.worker_retired(name, self.now))

    def remove(self, name: str) -> None:
        self._give_back(self.workers.pop(name))
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
        self,
        name: str,
        model: str = "a",
        spare: bool = False,
        skills: Skills = UNKNOWN,
        slots: int = 1,
        longest: float = 0.0,
    ) -> None:
        worker = self.workers[name]
        worker.state, worker.model, worker.failed_loads = "ready", model, 0
        worker.spare, worker.skills = spare, skills
        worker.slots, worker.longest = slots, longest
        self._check(
            self.scheduler.worker_ready(name, model, self.now, spare, skills, slots, longest)
        )

    def lost(self, name: str, turn: int = 0) -> None:
        """`turn` is the key in the turn word."""
        worker = self.workers[name]
        worker.failed_loads += worker.state == "loading"
        worker.fails()
        self._crash(worker, turn)
        self._check(self.scheduler.worker_lost(name, "it died", self.now, turn))

    def left(self, name: str, asleep: bool) -> None:
        worker = self.workers[name]
        worker.fails()
        if asleep:
            worker.state = "asleep"
        self._give_back(worker)
        self._check(self.scheduler.worker_left(name, asleep, self.now))

    def failed(self, name: str, down: bool = False) -> None:
        state = WorkerState.DOWN if down else WorkerState.FAILED
        self.workers[name].state = state.value
        self._crash(self.workers[name], 0)
        self._check(self.scheduler.worker_failed(name, state, "no model", self.now))

    def report(self, name: str, key: int, work: float, done: float, total: float | None) -> None:
        booked = self._of(name, key)
        if booked is not None:
            booked.job.seconds = total or booked.job.seconds
            booked.done = max(booked.done, min(done, booked.job.seconds or done))
            self._note_work(booked, work, booked.done)
        self._check(self.scheduler.job_state(name, key, work, done, total, self.now))

    def moved(self, name: str, key: int, seconds: float) -> None:
        booked = self._of(name, key)
        if booked is not None and seconds > booked.kept:
            booked.kept, booked.deaths = seconds, 0
        found = self.scheduler.job_moved(name, key, seconds)
        assert found is (None if booked is None else booked.job)
        self.tick()

    def done(self, name: str, key: int, work: float = 0.0, audio_seconds: float = 0.0) -> None:
        number = self._answered(name, key)
        result = f"text of {number}"
        if number is not None:
            self._note_work(self.jobs[number], work, audio_seconds)
            self._due[number] = result
        self._check(self.scheduler.job_done(name, key, result, self.now, work, audio_seconds))

    def job_failed(self, name: str, key: int, fatal: bool = False) -> None:
        failure = Failure(Code.OUT_OF_MEMORY, "no memory")
        if fatal:
            self.workers[name].failed_loads += self.workers[name].state == "loading"
            self.workers[name].fails()
            self._crash(self.workers[name], key)
        else:
            number = self._answered(name, key)
            if number is not None:
                self._due[number] = failure
        self._check(self.scheduler.job_failed(name, key, failure, self.now, fatal))

    def too_large(self, name: str, key: int) -> None:
        """The worker finds that a recording is longer than it takes."""
        failure, worker = Failure(Code.TOO_LARGE, "too long"), self.workers[name]
        number = self._answered(name, key)
        if number is not None:
            job = self.jobs[number].job
            news = worker.longest > 0 and job.seconds <= worker.longest
            before = job.seconds
            job.seconds = math.nextafter(worker.longest, math.inf) if news else before
            if news and self._best(job):
                self._put_back([number])
            else:
                self._due[number] = failure
            job.seconds = before
        self._check(self.scheduler.job_failed(name, key, failure, self.now))

    def breach(self, name: str, key: int) -> None:
        """An answer for a job that the worker does not run changes nothing."""
        it, failure = self.scheduler, Failure(Code.INTERNAL, "")
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            it.job_done(name, key, "stolen", self.now)
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            it.job_failed(name, key, failure, self.now)
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            it.job_state(name, key, 1.0, 1.0, 1.0, self.now)
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}"):
            it.job_moved(name, key, 1.0)
        self.tick()

    # --- what is expected -------------------------------------------------------------------

    def _of(self, name: str, key: int) -> BookedJob | None:
        booked = self.jobs[self.workers[name].jobs[key]]
        return None if booked.state == "ended" else booked

    def _note_work(self, booked: BookedJob, work: float, done: float) -> None:
        """Takes a report, if there was so much time."""
        work = min(work, self.now - booked.started)
        if work > booked.reported:
            booked.reported, booked.worked_at = work, self.now
        windows = (done - booked.kept) / 30 if done > booked.kept + 30 else 1.0
        self.dearest = max(self.dearest, work / windows, booked.reported / windows)

    def _answered(self, name: str, key: int) -> int | None:
        number = self.workers[name].jobs.pop(key)
        return None if self.jobs[number].state == "ended" else number

    def _takes(self, worker: BookedWorker) -> bool:
        """Returns True if it must run a job if there is one for it, and a place."""
        reserved = worker.spare and any(
            other.ready
            and not other.spare
            and (other.model, other.skills) == (worker.model, worker.skills)
            and (other.longest == 0 or 0 < worker.longest <= other.longest)
            for other in self.workers.values()
        )
        return worker.ready and not reserved

    def _there(self, worker: BookedWorker) -> list[BookedJob]:
        return [self.jobs[number] for number in worker.jobs.values()]

    def _has_room(self, worker: BookedWorker, new: BookedJob) -> bool:
        there = self._there(worker)
        longs = [booked.job.user for booked in there if booked.long]
        total, shorts = len(there), len(there) - len(longs)
        if worker.slots == 1:
            return total == 0
        if new.long:
            users = {*longs, new.job.user}
            return total < worker.slots and len(set(longs)) < len(users) < worker.slots
        mine = [booked for booked in there if booked.job.user == new.job.user]
        doubtful = [booked for booked in mine if booked.long or booked.job.seconds == 0]
        if new.job.seconds == 0 and (len(doubtful) > 1 or total == 2 * worker.slots - 1):
            return False
        return shorts < 2 if total < worker.slots else shorts == 0 and total < 2 * worker.slots

    def _may_run(self, job: Job) -> bool:
        limit = self.settings.jobs_running_max_per_user
        running = [b.job for b in self.jobs.values() if b.state == "running"]
        counted = sum(each.user == job.user and not each.step for each in running)
        return limit == 0 or job.step or counted < limit

    def _has_place(self, job: Job) -> bool:
        workers = [worker for worker in self._best(job) if self._takes(worker)]
        new = BookedJob(job)
        return self._may_run(job) and any(self._has_room(w, new) for w in workers)

    def _could_start(self, number: int, worker: BookedWorker) -> bool:
        booked = self.jobs[number]
        fits = self._suits(worker, booked.job) and self._has_room(worker, booked)
        return self._takes(worker) and fits and self._may_run(booked.job)

    def _waiting(self) -> list[int]:
        return [number for number, booked in self.jobs.items() if booked.waiting]

    def _depth(self) -> int:
        return sum(not self.jobs[number].job.step for number in self._waiting())

    def _expected_refusal(self, job: Job) -> Code | None:
        """Returns the code of a refusal that needs no prediction."""
        if self.draining:
            return Code.SHUTTING_DOWN
        best = self._best(job)
        if not best:
            return self._hopeless_code(job)
        models = {worker.model for worker in best} - {None}
        if self._needs(job).model is not None and len(models) > 1:
            return Code.BAD_REQUEST
        if job.step or self._has_place(job):
            return None
        waiting = [b.job for b in self.jobs.values() if b.state == "waiting" and not b.job.step]
        return Code.BUSY if self._over_a_limit(waiting, job) else None

    def _over_a_limit(self, waiting: list[Job], job: Job) -> bool:
        limits, own = self.settings, [other for other in waiting if other.user == job.user]
        if not own:
            return len(waiting) >= 2 * limits.queue_max
        return (
            len(waiting) >= limits.queue_max
            or 0 < limits.queue_max_per_user <= len(own)
            or sum(each.size for each in [*waiting, job]) > limits.queue_max_bytes
            or sum(each.seconds for each in [*waiting, job]) > limits.queue_max_audio_seconds
        )

    def _check_prediction(self, job: Job, failure: Failure) -> None:
        """A job may be refused if it would wait for too long; but nothing takes longer than all
        jobs, each at the highest cost, one after another, and a share of what runs."""
        said = re.fullmatch(r"it would wait about (\d+) s, longer than the \S+ s .*", failure.text)
        assert said is not None and failure.code is Code.BUSY, failure
        patience = self.settings.max_wait_seconds if job.timeout is None else job.timeout
        alive = [b for b in self.jobs.values() if b.state != "ended"]
        # A long file of unknown length is taken for MP3 with 128 kbit/s.
        lengths = [b.job.seconds or (b.job.size / 16_000 if b.long else 0.0) for b in alive]
        windows = sum(max(1, math.ceil(seconds / 30)) for seconds in lengths)
        assert patience - 1 <= int(said[1]) <= 1 + self.dearest * windows * (1 + len(alive))
        assert any(self._takes(worker) for worker in self._best(job))

    def _best(self, job: Job) -> list[BookedWorker]:
        """Returns the workers that it may run on: none that could is preferred to them."""
        needs = self._needs(job)
        hopeful = {name: w for name, w in self.workers.items() if w.hopeful}
        fit = {name: worker for name, worker in hopeful.items() if worker.could(job, needs)}
        known = {name: worker for name, worker in fit.items() if worker.model is not None}
        if needs.model is None and known:
            english = needs.language is None
            ranks = {n: (english and not w.multilingual, w.spare, n) for n, w in known.items()}
            model = known[min(ranks, key=lambda name: ranks[name])].model
            fit = {name: worker for name, worker in known.items() if worker.model == model}
        there = fit.values()
        return [w for w in there if not any(other.beats(w, needs) for other in there)]

    def _needs(self, job: Job) -> Needs:
        """Returns its needs, with the default model if it names none and that model can do them."""
        needs, default = job.needs, self.settings.default_model
        if needs.model is not None or not default:
            return needs
        named = replace(needs, model=default)
        there = [w for w in self.workers.values() if w.model and not w.retired]
        holders = [worker for worker in there if worker.is_named(default)]
        unable = holders and not any(worker.could(job, named) for worker in holders)
        return needs if unable else named

    def _suits(self, worker: BookedWorker, job: Job) -> bool:
        return any(worker is best for best in self._best(job))

    def _hopeless_code(self, job: Job) -> Code:
        workers, needs = self.workers.values(), self._needs(job)
        hopeful = [worker for worker in workers if worker.hopeful]
        enough = [w for w in workers if w.longest == 0 or job.seconds <= w.longest]
        gone = [worker for worker in enough if not worker.hopeful]
        if not hopeful or any(w.model is not None and w.able(needs) for w in gone):
            return Code.UNAVAILABLE
        if any(worker.able(needs) for worker in hopeful):
            return Code.TOO_LARGE
        if any(worker.is_named(needs.model) for worker in hopeful):
            return Code.BAD_REQUEST
        return Code.UNAVAILABLE if job.kept else Code.MODEL_NOT_FOUND

    def _crash(self, worker: BookedWorker, turn: int) -> None:
        """The fault is that of the job in turn; if that is not known, of all."""
        known = turn in worker.jobs
        jobs = {k: n for k, n in sorted(worker.jobs.items()) if self.jobs[n].state != "ended"}
        worker.jobs = {}
        guilty = [n for key, n in jobs.items() if key == turn or not known]
        for number in guilty:
            self.jobs[number].deaths += 1
        dead = [n for n in guilty if self.jobs[n].deaths >= self.settings.max_attempts]
        for number in dead:
            self.jobs[number].where = None
            self._due[number] = Code.WORKER_CRASHED
        back = [n for n in jobs.values() if n not in dead]
        self._put_back([n for n in back if n in guilty] + [n for n in back if n not in guilty])

    def _give_back(self, worker: BookedWorker) -> None:
        """The worker is gone, and none of its jobs is to blame."""
        jobs = [n for _, n in sorted(worker.jobs.items()) if self.jobs[n].state != "ended"]
        worker.jobs = {}
        self._put_back(jobs)

    def _put_back(self, numbers: list[int]) -> None:
        self.returned = [n for n in numbers if not self.jobs[n].job.step] + self.returned
        for number in numbers:
            booked = self.jobs[number]
            booked.state, booked.where = "retrying", None
            anew = booked.reported > 0
            booked.reported, booked.planned, booked.done = 0.0, 0.0, booked.kept
            self._begin_wait(number, anew)

    # --- waits and runs ---------------------------------------------------------------------

    def _begin_wait(self, number: int, anew: bool = True) -> None:
        booked = self.jobs[number]
        patient = booked.job.timeout is not None and not self.draining
        longest = math.inf if patient else self.settings.max_wait_seconds
        if anew:
            booked.longest_wait, booked.longest_load = longest, self.settings.max_load_seconds
        booked.longest_wait = min(booked.longest_wait, longest)
        booked.waits = [(self.now, self._held_up(booked.job))]

    def _held_up(self, job: Job) -> bool:
        best = self._best(job)
        loads = [w for w in best if w.state in COMING and w.failed_loads < 2]
        elsewhere = any(w.ready for w in best) and not job.attempts
        return bool(loads) and not elsewhere and not self.draining

    def _deadline(self, booked: BookedJob) -> float:
        """Returns the time at which it must end at last, if it waits or does no work."""
        if booked.waiting:
            left, load = self._left(booked)
            since, held = booked.waits[-1]
            due = since + left + (load if held else 0.0)
        else:
            due = booked.worked_at + self.settings.max_run_seconds
        timeout = booked.job.timeout
        return due if timeout is None else min(due, booked.job.arrival + timeout)

    def _left(self, booked: BookedJob) -> tuple[float, float]:
        """Returns what was left of its wait, and of that for a model, at its last change."""
        left, load = booked.longest_wait, booked.longest_load
        for (since, held), (until, _) in zip(booked.waits, booked.waits[1:], strict=False):
            stood = min(until - since, load) if held else 0.0
            load, left = load - stood, left - (until - since - stood)
        return left, load

    def _has_run(self, booked: BookedJob) -> bool:
        return booked.state == "running" and booked.job.work >= self.settings.max_run_seconds

    def _update_waits(self) -> None:
        for number in self._waiting():
            booked = self.jobs[number]
            held = self._held_up(booked.job)
            if held != booked.waits[-1][1] and self._deadline(booked) > self.now:
                booked.waits.append((self.now, held))

    # --- the users' turns -------------------------------------------------------------------

    def _begin_account(self, job: Job) -> None:
        costs = {user: self._cost(user) for user in self.began}
        least = max(min(costs.values(), default=0.0), self.away.pop(job.user, 0.0))
        began, numbers = self.began.setdefault(job.user, (least, []))
        behind = max(costs.values(), default=0.0) - CREDIT - self._cost(job.user)
        self.began[job.user] = began + max(0.0, behind), [*numbers, job.request]

    def _cost(self, user: User) -> float:
        began, numbers = self.began[user]
        return began + sum(self.jobs[number].work for number in numbers)

    def _rank(self, number: int) -> tuple[float, bool, int]:
        user, step = self.jobs[number].job.user, self.jobs[number].job.step
        planned = (b.planned for b in self.jobs.values() if b.job.user == user)
        # The steps of a user have no order: one that was given back is before others.
        return round(self._cost(user) + sum(planned), 6), step, 0 if step else number

    def _take_estimates(self) -> None:
        for booked in self.jobs.values():
            if booked.state == "running" and booked.job.worker is not None:
                booked.work, booked.planned = booked.job.work, booked.job.planned

    # --- the actions ------------------------------------------------------------------------

    def _check(self, found: list[actions.Action], busy: Iterable[Job] = ()) -> None:
        self._update_waits()
        self._expect_ends()
        self._take_estimates()
        unwanted: list[Abandon] = []
        for action in found:
            match action:
                case Finish(job, outcome):
                    unwanted += self._finished(job, outcome)
                case Start(job, worker, key):
                    self._started(job, worker, key)
                case Wake(worker):
                    self._woken(worker, busy)
                case _:
                    assert isinstance(action, Abandon), f"unexpected {action}"
        assert not self._due, f"not ended: {self._due}"
        assert [action for action in found if isinstance(action, Abandon)] == unwanted
        self._check_state()

    def _expect_ends(self) -> None:
        for number, booked in self.jobs.items():
            if number in self._due or booked.state == "ended":
                continue
            if booked.waiting and not self._best(booked.job):
                self._due[number] = self._hopeless_code(booked.job)
            elif self._deadline(booked) <= self.now:
                self._due[number] = Code.DEADLINE_EXCEEDED

    def _finished(self, job: Job, outcome: object) -> list[Abandon]:
        """Returns what must be abandoned now: the run of the worker that still has it."""
        number, booked = job.request, self.jobs[job.request]
        assert booked.job is job and booked.state != "ended", f"ended twice: {job}"
        if number not in self._due and self._has_run(booked):
            self._due[number] = Code.DEADLINE_EXCEEDED
        expected = self._due.pop(number)
        if isinstance(expected, Code):
            assert isinstance(outcome, Failure) and outcome.code is expected, (outcome, expected)
            phase = "queue" if booked.waiting else "run"
            overdue = expected is Code.DEADLINE_EXCEEDED
            assert outcome.phase == (phase if overdue else None)
        else:
            assert outcome == expected
        where = booked.where
        booked.state, booked.where, booked.planned, booked.work = "ended", None, 0.0, job.work
        if number in self.returned:
            self.returned.remove(number)
        _, numbers = self.began[job.user]
        if all(self.jobs[each].state == "ended" for each in numbers):
            self.away[job.user] = self._cost(job.user)
            del self.began[job.user]
        if not self.began:
            self.away = {}
        held = where is not None and where[1] in self.workers[where[0]].jobs
        return [Abandon(*where)] if where is not None and held else []

    def _started(self, job: Job, name: str, key: int) -> None:
        booked, worker = self.jobs[job.request], self.workers[name]
        assert booked.waiting, f"started while it is {booked.state}"
        assert self._could_start(job.request, worker), f"started on {worker}"
        assert key not in self.keys, "a key was used twice"
        for other, free in self.workers.items():
            if self._load(other) < self._load(name):
                assert not any(self._could_start(n, free) for n in self._waiting()), "less to do"
        next_one = self._whose_turn(worker)
        steps = job.step and self._rank(job.request) == self._rank(next_one)
        assert steps or job.request == next_one, "it was not its turn"
        self.keys.add(key)
        if job.request in self.returned:
            self.returned.remove(job.request)
        booked.waits.append((self.now, False))
        booked.longest_wait, booked.longest_load = self._left(booked)
        booked.state, booked.where = "running", (name, key)
        booked.started = booked.worked_at = self.now
        booked.work, booked.planned, booked.reported = job.work, job.planned, 0.0
        booked.attempts += 1
        assert booked.attempts == job.attempts and job.planned > 0
        assert (job.deaths, job.done) == (booked.deaths, booked.kept)
        worker.jobs[key] = job.request

    def _load(self, name: str) -> tuple[int, int, str]:
        there = self._there(self.workers[name])
        return sum(booked.long for booked in there), len(there), name

    def _whose_turn(self, worker: BookedWorker) -> int:
        """Returns the job that must be next on this worker."""
        returned = [n for n in self.returned if self._could_start(n, worker)]
        fitting = [n for n in self._waiting() if self._could_start(n, worker)]
        return returned[0] if returned else min(fitting, key=self._rank)

    def _woken(self, name: str, busy: Iterable[Job]) -> None:
        worker = self.workers[name]
        assert worker.state == "asleep"
        wanting = [self.jobs[n].job for n in self._waiting()] + [*busy]
        assert any(self._suits(worker, job) for job in wanting), "woken for nothing"
        worker.state = "starting"

    # --- what holds at all times ------------------------------------------------------------

    def _check_state(self) -> None:
        scheduler = self.scheduler
        assert {job.request for job in scheduler.queue} == set(self._waiting())
        assert len(scheduler.queue) == self._depth()
        for number in self._waiting():
            free = [name for name, w in self.workers.items() if self._could_start(number, w)]
            assert not free, f"{self.jobs[number].job} waits though {free} could run it"
        self._check_workers()
        self._check_accounts()
        self._check_deadlines()
        self._check_wakes([self.jobs[n].job for n in self._waiting()])

    def _check_workers(self) -> None:
        assert self.scheduler.workers.keys() == self.workers.keys()
        for name, worker in self.workers.items():
            seen = self.scheduler.workers[name]
            books = BookedWorker(
                *(seen.state, seen.retired, seen.model, seen.skills, seen.spare, seen.slots),
                *(seen.max_audio_seconds, seen.failed_loads),
                {key: job.request for key, job in seen.jobs.items()},
            )
            assert books == worker
            self._check_places(worker)

    def _check_places(self, worker: BookedWorker) -> None:
        """No user's jobs fill a worker, and a short one of known length waits for short ones."""
        there = self._there(worker)
        assert len(there) <= (1 if worker.slots == 1 else 2 * worker.slots)
        if worker.slots == 1 or not self._takes(worker):
            return
        for number in self._waiting():
            booked = self.jobs[number]
            known_short = booked.job.seconds > 0 and not booked.long
            if known_short and self._suits(worker, booked.job) and self._may_run(booked.job):
                assert any(not other.long for other in there) or len(there) == 2 * worker.slots

    def _check_accounts(self) -> None:
        accounts = self.scheduler.queue._accounts
        assert accounts.keys() == self.began.keys()
        alive = [booked for booked in self.jobs.values() if booked.state != "ended"]
        for user, account in accounts.items():
            own = [booked for booked in alive if booked.job.user == user]
            running = [b for b in own if b.state == "running" and not b.job.step]
            assert (account.jobs, account.running) == (len(own), len(running))
            assert account.work == pytest.approx(self._cost(user), abs=1e-6)
            planned = sum(booked.job.planned for booked in own)
            assert account.planned == pytest.approx(planned, abs=1e-6)
        for booked in alive:
            assert booked.waiting == (booked.job.worker is None)
            assert not booked.waiting or booked.job.planned == 0
            ran = booked.job.work - booked.job.work_before
            assert booked.job.deaths == booked.deaths
            if booked.state == "running":
                assert ran == pytest.approx(booked.reported, abs=1e-6)
        waiting = [b.job for b in alive if b.state == "waiting" and not b.job.step]
        queue = self.scheduler.queue
        assert (queue._waiting.used, queue._bytes) == (len(waiting), sum(j.size for j in waiting))
        assert abs(queue._seconds - sum(job.seconds for job in waiting)) < 1e-6
        limits = self.settings
        assert len(waiting) <= 2 * limits.queue_max

    def _check_deadlines(self) -> None:
        """A run may be looked at before its end; a wait has its deadline."""
        alive = [booked for booked in self.jobs.values() if booked.state != "ended"]
        found, last = self.scheduler.next_deadline(), map(self._deadline, alive)
        assert self.scheduler.idle == (not alive)
        latest = min(last, default=math.inf)
        assert self.now < found <= latest + 1e-6
        if all(booked.waiting for booked in alive):
            assert found == pytest.approx(latest)
        assert not any(self._has_run(b) and b.worked_at + REPORT < self.now for b in alive)

    def _check_wakes(self, jobs: list[Job]) -> None:
        """No client that waits, or was asked to come again, finds all its workers asleep."""
        for job in jobs:
            able = self._best(job) if self._may_run(job) else []
            assert not able or any(worker.state != "asleep" for worker in able), f"{job} waits"

    # --- the end ----------------------------------------------------------------------------

    def end_fairly(self) -> None:
        """Each job that can run has its turn, if workers go on to answer."""
        for name in sorted(self.workers):
            self.add(name)
            worker = self.workers[name]
            self.ready(name, worker.model or "a", skills=worker.skills, slots=worker.slots)
        for _ in range(2 * len(self.jobs) + 2):
            for name, key in list(self._all_keys()):
                self.done(name, key)
        assert all(b.state == "ended" for b in self.jobs.values()), "a job starves"

    def _all_keys(self) -> Iterator[tuple[str, int]]:
        for name, worker in self.workers.items():
            for key in worker.jobs:
                yield name, key

    def check_all_answered(self) -> None:
        """Every accepted job has ended, and the scheduler keeps nothing of it."""
        assert all(booked.state == "ended" for booked in self.jobs.values())
        scheduler, queue = self.scheduler, self.scheduler.queue
        assert scheduler.idle and scheduler.next_deadline() == math.inf
        assert not (scheduler.limits.deadlines or queue._lanes or queue._returned)
        assert not (queue._waiting._of_user or queue._accounts)
        assert (queue._waiting.used, queue._bytes) == (0, 0) and abs(queue._seconds) < 1e-6
