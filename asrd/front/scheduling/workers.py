"""The workers as the scheduler knows them, and the jobs that suit each. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from asrd.errors import Code
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.job import Job, Needs
from asrd.model_names import Match, identity, match

# The languages that an error names at most.
_FEW = 5


class WorkerState(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    ASLEEP = "asleep"
    FAILED = "failed"
    DOWN = "down"


# The states in which nothing can be expected of a worker.
UNUSABLE = (WorkerState.FAILED, WorkerState.DOWN)


@dataclass(frozen=True, slots=True)
class Skills:
    """Abilities of a worker's model. Without `languages` nothing is known: it may have any."""

    languages: frozenset[str] | None = None
    translate: bool = True
    word_timestamps: bool = True

    @property
    def multilingual(self) -> bool:
        return self.languages is not None and len(self.languages) > 1

    def lack(self, needs: Needs) -> str | None:
        """Returns the name of the option that this model can't do, None if it can do all."""
        if self.languages is None:
            return None
        if needs.language is not None and needs.language not in self.languages:
            return "language"
        if needs.translate and not self.translate:
            return "task"
        if needs.word_timestamps and not self.word_timestamps:
            return "word_timestamps"
        if needs.multilingual and not self.multilingual:
            return "multilingual"
        return None


UNKNOWN = Skills()


@dataclass(eq=False, slots=True)
class Worker:
    """`reason` says why it can't serve. `model` and `skills` are the last ones that any of its
    processes reported.

    `retired`: its socket is gone, so it gets no more jobs. `woken`: it was asleep, and has sent
    nothing since it was woken. `key` and `job`: what it runs; an abandoned job leaves the key.
    """

    name: str
    state: WorkerState = WorkerState.STARTING
    reason: str | None = None
    model: str | None = None
    skills: Skills = UNKNOWN
    spare: bool = False
    retired: bool = False
    woken: bool = False
    key: int | None = None
    job: Job | None = None

    @property
    def ready(self) -> bool:
        return self.state is WorkerState.READY and not self.retired

    @property
    def free(self) -> bool:
        return self.ready and self.key is None

    @property
    def hopeful(self) -> bool:
        """True if it serves, or can be expected to."""
        return not self.retired and self.state not in UNUSABLE

    def release(self) -> Job | None:
        """Forgets its job and returns it; None if that was abandoned."""
        job, self.key, self.job = self.job, None, None
        return job

    def has_model(self, needs: Needs) -> bool:
        """Returns True if its model, as far as known, has the requested name."""
        if needs.model is None or self.model is None:
            return True
        return match(self.model, needs.model) is not None

    def could_run(self, needs: Needs) -> bool:
        return self.has_model(needs) and self.skills.lack(needs) is None


class Workers(dict[str, Worker]):
    """All workers, by name. `aliases` are the admin's names for models, in lower case."""

    def __init__(self, aliases: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._aliases = {name.casefold(): model for name, model in (aliases or {}).items()}

    def serving(self) -> Iterator[Worker]:
        """Yields the workers that are ready, without spares that are not needed (rule 7)."""
        return (worker for worker in self.values() if worker.ready and not self._reserved(worker))

    def suitable(self, needs: Needs) -> list[Worker]:
        """Returns the workers that a job may wait for (rule 8)."""
        needs = self._without_alias(needs)
        able = [worker for worker in self.values() if worker.hopeful and worker.could_run(needs)]
        if needs.model is not None:
            exact = [w for w in able if w.model and match(w.model, needs.model) is Match.EXACT]
            able = exact or able
        if needs.language is None:
            able = [worker for worker in able if worker.skills.multilingual] or able
        return able

    def suits(self, worker: Worker) -> Callable[[Needs], bool]:
        """Returns a test for the needs that this worker may serve."""
        return lambda needs: worker in self.suitable(needs)

    def why_ambiguous(self, needs: Needs) -> Failure | None:
        """Returns the refusal of a model's name that fits several models, None if it does not."""
        models = {identity(w.model): w.model for w in self.suitable(needs) if w.model is not None}
        if self._without_alias(needs).model is None or len(models) < 2:
            return None
        names = " or ".join(sorted(models.values()))
        text = f"name: {needs.model!r} may be {names}: give the whole name"
        return Failure(Code.BAD_REQUEST, text)

    def why_hopeless(self, needs: Needs) -> Failure | None:
        """Returns the reason why no worker can ever run a job with these needs, None if one can."""
        if not self:
            return Failure(Code.UNAVAILABLE, "no worker is configured")
        if self.suitable(needs):
            return None
        written, needs = needs.model, self._without_alias(needs)
        hopeful = [worker for worker in self.values() if worker.hopeful]
        gone = [worker for worker in self.values() if not worker.hopeful]
        if hopeful:
            gone = [worker for worker in gone if worker.model and worker.could_run(needs)]
        if gone or not hopeful:
            reasons = (f"worker {w.name}: {w.reason or 'its socket is gone'}" for w in gone)
            return Failure(Code.UNAVAILABLE, f"no worker can serve: {'; '.join(reasons)}")
        named = [worker.skills for worker in hopeful if worker.has_model(needs)]
        if not named:
            there = ", ".join(self._names(hopeful))
            text = f"name: no worker has the model {written!r}; there is: {there}"
            return Failure(Code.MODEL_NOT_FOUND, text)
        return Failure(Code.BAD_REQUEST, _why_unable(named, needs))

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
            and identity(other.model or "") == identity(worker.model or "")
            # Of two models with the same name, the spare's may know more.
            and other.skills == worker.skills
            for other in self.values()
        )


def _why_unable(all_skills: list[Skills], needs: Needs) -> str:
    """Returns the sentence about what the closest of these models lacks."""
    lacks = {skills.lack(needs) for skills in all_skills}
    if "word_timestamps" in lacks:
        return "word_timestamps: no worker's model has alignment_heads"
    if "task" in lacks:
        return "task: no worker's model can translate: English-only models can't"
    if "multilingual" in lacks:
        return "multilingual: no worker has a multilingual model"
    known = set().union(*(skills.languages or () for skills in all_skills))
    few = f" (they know {', '.join(sorted(known))})" if len(known) <= _FEW else ""
    return f"language: no worker's model knows {needs.language!r}{few}"
