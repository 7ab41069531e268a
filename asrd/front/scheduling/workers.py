"""The workers as the scheduler knows them, and the jobs that suit each. Pure.

A worker suits a job if its model has the name that the job asks for, knows the job's language (if
any) and can do its task, and if it takes recordings of that length. An alias of the settings counts
as the model's own name, unless a model has exactly that name. A worker whose model has exactly the
name (or another name of the same official model) is preferred to one whose directory has it.

A job without a name is for one model, however busy its workers are, so that nobody gets another
model because somebody else works: `default_model` of the settings, or else the first worker's that
can do what the job needs. The first is the one with the lowest number, and spares come last. For a
job without a language, a multilingual model comes first, since an English-only one turns German
into invented English. Where the default model can't do what a job needs, that rule decides, too.

A job that was begun prefers the model that it was begun with: only an admin who replaces the model
puts another one there. A job waits for a preferred worker that is busy, asleep or loading, and goes
to another only if no preferred one can be expected; never if `default_model` is preferred. The last
report of a worker's model counts, also while it loads. A worker that never reported may suit any
job, but is not preferred.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from asrd.errors import Code
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.job import Job, Needs
from asrd.model_names import Match, identity, match

# The languages that an error names at most.
_FEW = 5
# The short jobs that a worker has at once: one that runs, and one that is there when it ends. More
# would wait where no other user's job can pass them.
_SHORT_MAX = 2
_FAILED_LOADS = 2


class WorkerState(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    ASLEEP = "asleep"
    FAILED = "failed"
    DOWN = "down"


# The states in which nothing can be expected of a worker.
UNUSABLE = (WorkerState.FAILED, WorkerState.DOWN)
# The states before it is ready. A sleeping worker that a job waits for is woken at once.
_COMING = (WorkerState.STARTING, WorkerState.LOADING, WorkerState.ASLEEP)


@dataclass(frozen=True, slots=True)
class Skills:
    """Abilities of a worker's model. Without `languages` nothing is known: it may have any. One for
    `speakers` tells them apart and does nothing else."""

    languages: frozenset[str] | None = None
    translate: bool = True
    word_timestamps: bool = True
    speech: bool = True
    speakers: bool = False

    @property
    def multilingual(self) -> bool:
        return self.languages is not None and len(self.languages) > 1

    def lack(self, needs: Needs) -> str | None:
        """Returns the name of the option that this model can't do, None if it can do all."""
        if self.languages is None:
            return None
        if needs.speakers != self.speakers:
            return "speakers"
        if needs.language is not None and needs.language not in self.languages:
            return "language"
        if needs.translate and not self.translate:
            return "task"
        if needs.word_timestamps and not self.word_timestamps:
            return "word_timestamps"
        if needs.multilingual and not self.multilingual:
            return "multilingual"
        if needs.speech and not self.speech:
            return "speech"
        return None


UNKNOWN = Skills()


@dataclass(eq=False, slots=True)
class Worker:
    """`reason` says why it can't serve. `model` and `skills` are the last ones that any of its
    processes reported.

    `retired`: its socket is gone, so it gets no more jobs. `woken`: it was asleep, and has sent
    nothing since it was woken. `failed_loads`: its processes that died in a row while they loaded.
    `slots` jobs take turns on it; recordings last `max_audio_seconds` at most (0: any length).
    `jobs`, by their keys, are those that it has not answered, also those that have ended.
    """

    name: str
    state: WorkerState = WorkerState.STARTING
    reason: str | None = None
    model: str | None = None
    skills: Skills = UNKNOWN
    spare: bool = False
    retired: bool = False
    woken: bool = False
    failed_loads: int = 0
    slots: int = 1
    max_audio_seconds: float = 0.0
    jobs: dict[int, Job] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state is WorkerState.READY and not self.retired

    @property
    def hopeful(self) -> bool:
        """True if it serves, or can be expected to."""
        return not self.retired and self.state not in UNUSABLE

    @property
    def order(self) -> tuple[bool, bool, int, str]:
        """A key by which the worker whose model is the default is the first."""
        numbered = self.name.isdecimal()
        return self.spare, not numbered, int(self.name) if numbered else 0, self.name

    @property
    def load(self) -> tuple[int, int, str]:
        """A key by which the worker with the least to do is the first: long jobs weigh most."""
        return sum(job.long for job in self.jobs.values()), len(self.jobs), self.name

    def has_room(self, long: bool) -> bool:
        """Returns True if it may have one more long or short job of some user.

        It has at most `slots` jobs; of these at most two short ones, and long ones of at most
        `slots` - 1 users. If short jobs turn out to be long, it gets one more short job
        nevertheless, up to twice as many jobs in all.
        """
        total = len(self.jobs)
        if self.slots == 1:
            return not total
        if long:
            return total < self.slots and not self.crowded
        longs = sum(job.long for job in self.jobs.values())
        if total < self.slots:
            return total - longs < _SHORT_MAX
        return total < 2 * self.slots and total == longs

    @property
    def crowded(self) -> bool:
        """True if no further user's recording takes turns with those that it has."""
        return len({job.user for job in self.jobs.values() if job.long}) >= self.slots - 1

    def has_place(self, job: Job) -> bool:
        """Returns True if it may have this job, too.

        It has one long job of each user; but files of unknown length may turn out to be long. So a
        user with two jobs that are long, or may be, gets no place for another such file, and the
        last place of all is for a job of known length.
        """
        if not self.has_room(job.long):
            return False
        own = [other for other in self.jobs.values() if other.user == job.user]
        if job.long:
            return not any(other.long for other in own)
        maybe_long = sum(other.long or not other.seconds for other in own)
        surprises = maybe_long > 1 or len(self.jobs) == 2 * self.slots - 1
        return job.seconds > 0 or self.slots == 1 or not surprises

    def takes(self, job: Job) -> bool:
        """Returns True if the job is not too long for it, as far as known."""
        return not self.max_audio_seconds or job.seconds <= self.max_audio_seconds

    def release_all(self) -> dict[int, Job]:
        """Forgets its jobs and returns those that have not ended."""
        jobs, self.jobs = self.jobs, {}
        return {key: job for key, job in jobs.items() if not job.ended}

    def has_model(self, needs: Needs) -> bool:
        """Returns True if its model, as far as known, has the requested name."""
        if needs.model is None or self.model is None:
            return True
        return match(self.model, needs.model) is not None

    def could_run(self, needs: Needs) -> bool:
        return self.has_model(needs) and self.skills.lack(needs) is None


class Workers(dict[str, Worker]):
    """All workers, by name. `aliases` are the admin's names for models, `default` the model of jobs
    without one (empty: that of the first worker)."""

    def __init__(self, aliases: Mapping[str, str] | None = None, default: str = "") -> None:
        super().__init__()
        self._default = default
        self._aliases = {name.casefold(): model for name, model in (aliases or {}).items()}

    def serving(self) -> Iterator[Worker]:
        """Yields the workers that are ready, without spares that are not needed (rule 7)."""
        return (worker for worker in self.values() if worker.ready and not self._reserved(worker))

    def serving_for(self, job: Job) -> list[Worker]:
        """Returns the workers that may get this job, once they have a place for it."""
        serving = set(self.serving())
        return [worker for worker in self.suitable(job) if worker in serving]

    @property
    def limited(self) -> bool:
        """True if a worker takes no recordings of any length."""
        return any(worker.max_audio_seconds for worker in self.values())

    def suitable(self, job: Job) -> list[Worker]:
        """Returns the workers that a job may wait for (rule 8)."""
        needs = self._named(job)
        able = [w for w in self.values() if w.hopeful and w.could_run(needs) and w.takes(job)]
        if needs.model is None:
            able = _of_first_model(able, job)
        else:
            exact = [w for w in able if w.model and match(w.model, needs.model) is Match.EXACT]
            able = exact or able
        if needs.language is None:
            able = [worker for worker in able if worker.skills.multilingual] or able
        if job.model is not None:
            able = [worker for worker in able if worker.model == job.model] or able
        return able

    def may_start(self, worker: Worker, job: Job) -> bool:
        """Returns True if this worker has a place for the job and suits it."""
        return worker.has_place(job) and worker in self.suitable(job)

    def sleepers_for(self, jobs: Iterable[Job]) -> list[Worker]:
        """Returns one sleeping worker for each of these jobs, less those that are on their way."""
        asleep = [w for w in self.values() if w.state is WorkerState.ASLEEP]
        coming = [w for w in self.values() if w.woken]
        found = []
        for job in jobs if asleep else ():
            suitable = self.suitable(job)
            worker = next((w for w in coming + asleep if w in suitable), None)
            if worker in coming:
                coming.remove(worker)
            elif worker is not None:
                asleep.remove(worker)
                found.append(worker)
        return found

    def hold_up(self, job: Job) -> bool:
        """Returns True if the job waits for a model that is being loaded, and could run nowhere
        else. One that has run already waits for its place in any case: others may have filled all
        that are left, and what is finished of it must not be in vain."""
        ready = any(worker.ready for worker in self.suitable(job))
        return (job.attempts > 0 or not ready) and self.expected(job)

    def expected(self, job: Job) -> bool:
        """Returns True if a worker that suits the job is on its way, or comes when it is woken. One
        that died twice while it loaded is not expected to be ready soon."""
        return any(
            worker.state in _COMING and worker.failed_loads < _FAILED_LOADS
            for worker in self.suitable(job)
        )

    def why_ambiguous(self, job: Job) -> Failure | None:
        """Returns the refusal of a model's name that fits several models, None if it does not."""
        models = {identity(w.model): w.model for w in self.suitable(job) if w.model is not None}
        if self._named(job).model is None or len(models) < 2:
            return None
        names = " or ".join(sorted(models.values()))
        text = f"name: {self._written(job)} may be {names}: give the whole name"
        return Failure(Code.BAD_REQUEST, text)

    def why_hopeless(self, job: Job) -> Failure | None:
        """Returns the reason why no worker can ever run this job, None if one can."""
        if not self:
            return Failure(Code.UNAVAILABLE, "no worker is configured")
        if self.suitable(job):
            return None
        needs = self._named(job)
        hopeful = [worker for worker in self.values() if worker.hopeful]
        gone = [worker for worker in self.values() if not worker.hopeful]
        if hopeful:
            gone = [w for w in gone if w.model and w.could_run(needs) and w.takes(job)]
        if gone or not hopeful:
            reasons = (f"worker {w.name}: {w.reason or 'its socket is gone'}" for w in gone)
            return Failure(Code.UNAVAILABLE, f"no worker can serve: {'; '.join(reasons)}")
        if any(worker.could_run(needs) for worker in hopeful):
            longest = max(w.max_audio_seconds for w in hopeful if w.could_run(needs))
            text = f"audio: no worker takes recordings of more than {longest:g} s"
            return Failure(Code.TOO_LARGE, text)
        named = [worker.skills for worker in hopeful if worker.has_model(needs)]
        if not named:
            there = ", ".join(self._names(hopeful))
            text = f"name: no worker has the model {self._written(job)}; there is: {there}"
            # Its model was there when it was begun, and may come back.
            return Failure(Code.UNAVAILABLE if job.kept else Code.MODEL_NOT_FOUND, text)
        return Failure(Code.BAD_REQUEST, _why_unable(named, needs))

    def _named(self, job: Job) -> Needs:
        """Returns the needs of a job with the model that an alias or the default stands for, or
        None if any model that can do the rest will do.

        The default model counts, in whatever state its workers are, unless it can't do the rest.
        """
        needs = self._without_alias(job.needs)
        if needs.model is not None or not self._default:
            return needs
        named = self._without_alias(replace(needs, model=self._default))
        there = [w for w in self.values() if not w.retired and w.model and w.has_model(named)]
        able = any(worker.could_run(named) and worker.takes(job) for worker in there)
        return named if able or not there else needs

    def _written(self, job: Job) -> str:
        """Returns the name of the model that a job asks for, for an error."""
        if job.needs.model is None:
            return f"{self._default!r} (default_model in asrd.toml)"
        return repr(job.needs.model)

    def _without_alias(self, needs: Needs) -> Needs:
        """Replaces an alias by its model; a model with exactly that name comes first."""
        name = needs.model
        alias = None if name is None else self._aliases.get(name.casefold())
        if alias is None or any(worker.model == name for worker in self.values()):
            return needs
        return replace(needs, model=alias or None)

    def _names(self, workers: list[Worker]) -> list[str]:
        """Returns the names of these workers' models, and the aliases of them."""
        models = {worker.model for worker in workers if worker.model is not None}
        aliases = {
            alias
            for alias, model in self._aliases.items()
            if not model or any(match(each, model) is not None for each in models)
        }
        return sorted(models | aliases)

    def _reserved(self, worker: Worker) -> bool:
        return worker.spare and any(
            other.ready
            and not other.spare
            and (worker.max_audio_seconds or math.inf) <= (other.max_audio_seconds or math.inf)
            and identity(other.model or "") == identity(worker.model or "")
            # Of two models with the same name, the spare's may know more.
            and other.skills == worker.skills
            for other in self.values()
        )


def _of_first_model(able: list[Worker], job: Job) -> list[Worker]:
    """Returns those of the workers that have the model for a job without a name."""

    def rank(worker: Worker) -> tuple[object, ...]:
        english = job.needs.language is None and not worker.skills.multilingual
        return worker.model != job.model, english, worker.order

    known = [worker for worker in able if worker.model is not None]
    if not known:
        return able
    first = identity(min(known, key=rank).model or "")
    return [worker for worker in known if identity(worker.model or "") == first]


def _why_unable(all_skills: list[Skills], needs: Needs) -> str:
    """Returns the sentence about what the closest of these models lacks."""
    if needs.speakers:
        return "task: speakers: no worker has a model that tells speakers apart"
    lacks = {skills.lack(needs) for skills in all_skills}
    if lacks == {"speakers"}:
        return f"task: {needs.model or 'the only model'} tells speakers apart and writes no text"
    if "word_timestamps" in lacks:
        return "word_timestamps: no worker's model has alignment_heads"
    if "task" in lacks:
        return "task: no worker's model can translate: English-only models can't"
    if "multilingual" in lacks:
        return "multilingual: no worker has a multilingual model"
    if "speech" in lacks:
        return "end_of_speech_ms, task: no worker can find speech: its asrd is too old for that"
    known = set().union(*(skills.languages or () for skills in all_skills))
    few = f" (they know {', '.join(sorted(known))})" if len(known) <= _FEW else ""
    return f"language: no worker's model knows {needs.language!r}{few}"
