"""What the campaign did and what came of it: every job, every fault, every broken promise.

Clients open a job before they ask, note what they are told, and close it with the outcome; whoever
kills something notes that first. `oracle` judges each job as it is closed.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tests.soak import oracle

# Failures that are printed whole; a broken daemon breaks thousands of promises.
_SHOWN = 20
_LOG_BEFORE, _LOG_AFTER = 2_000, 4_000


class Kind(StrEnum):
    """What a job is to come to, whatever its neighbours do."""

    INNOCENT = "innocent"
    POISON = "poison"
    BAD_AUDIO = "bad audio"
    DOUBTFUL = "audio that changes"
    CANCELLED = "cancelled"
    HURRIED = "tiny timeout"


@dataclass(eq=False)
class Job:
    """`text` is the right one; `timeout` in seconds, what the client asked for; times are
    monotonic seconds. `library`: it asks again by itself, so that one job is several requests."""

    id: str
    kind: Kind
    how: str
    text: str | None
    timeout: float | None
    library: bool
    log_from: int
    born: float = field(default_factory=time.monotonic)
    accepted: float | None = None
    ended: float | None = None
    outcome: str | None = None
    found: str | None = None
    attempts: int = 1
    notes: list[tuple[float, str]] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.notes.append((time.monotonic(), what))

    @property
    def nameless(self) -> bool:
        """Whether its id stayed here: pure Wyoming has none."""
        return self.how in ("stream", "wyoming")

    @property
    def seconds(self) -> float:
        """From acceptance, where the client saw it, to the end."""
        start = self.born if self.accepted is None else self.accepted
        return (time.monotonic() if self.ended is None else self.ended) - start


@dataclass(frozen=True)
class Fault:
    """`target` is `front` or a worker's name; it acts from `start` on, and may take until `end`
    (a stopped process dies of its watchdog)."""

    start: float
    end: float
    what: str
    target: str
    pid: int


class Ledger:
    def __init__(self, title: str, seed: int, log: Path, limits: "oracle.Limits") -> None:
        self.title = title
        self.seed = seed
        self.limits = limits
        self.started = time.monotonic()
        self.jobs: list[Job] = []
        self.faults: list[Fault] = []
        self.failures: list[str] = []
        self.tricks: collections.Counter[str] = collections.Counter()
        self.casualties: collections.Counter[str] = collections.Counter()
        self._log = log
        self._lock = threading.Lock()
        self._last = 0

    def open(
        self,
        kind: Kind,
        how: str,
        text: str | None = None,
        timeout: float | None = None,
        library: bool = False,
    ) -> Job:
        """`text` must be given for whatever may end in a transcript."""
        with self._lock:
            self._last += 1
            job = Job(f"j{self._last}", kind, how, text, timeout, library, self._log_size())
            self.jobs.append(job)
        return job

    def close(self, job: Job, outcome: str, found: str | None = None, attempts: int = 1) -> None:
        """`outcome`: `transcript` (then `found` is its text), an error's code, or `lost`."""
        if job.outcome is not None:
            self.fail(f"answered twice: {job.outcome}, then {outcome} {found!r}", job)
            return
        job.note(outcome if found is None else f"{outcome} {found[:200]!r}")
        job.ended, job.attempts, job.found = time.monotonic(), attempts, found
        job.outcome = outcome
        problem = oracle.judge(job, self.faults, self.limits)
        if problem is not None:
            self.fail(problem, job)

    def fault(self, what: str, target: str, pid: int, act: Callable[[], None]) -> None:
        """Note it, and do it: in this order, so that no consequence is ever without its cause."""
        now = time.monotonic()
        with self._lock:
            self.faults.append(Fault(now, now + self.limits.lasting(what), what, target, pid))
        act()

    def trick(self, name: str) -> None:
        with self._lock:
            self.tricks[name] += 1

    def fail(self, problem: str, job: Job | None = None) -> None:
        with self._lock:
            if len(self.failures) < _SHOWN:
                problem = f"[{self.title}, seed {self.seed}] {problem}{self._story(job)}"
            self.failures.append(problem)

    @contextlib.contextmanager
    def told_of_failures(self) -> Iterator[None]:
        """What the daemon's own harness has to complain of is a broken promise too."""
        try:
            yield
        except AssertionError as error:
            self.fail(str(error)[-_LOG_AFTER:])

    def settle(self) -> None:
        """At the end: whatever is still open was never answered, and whoever is said to have been
        killed was, as `casualties` has it: how often each job's worker died under it."""
        for job in self.jobs:
            if job.outcome is None:
                self.fail("never answered", job)
            elif job.outcome == "worker-crashed" and not job.nameless:
                deaths = self.casualties[job.id]
                if deaths < self.limits.attempts:
                    self.fail(f"told that it crashed its workers, which it did {deaths} times", job)

    def _log_size(self) -> int:
        return self._log.stat().st_size

    def _story(self, job: Job | None) -> str:
        """The job's time line, the faults around it, and what the daemon logged meanwhile."""
        now = time.monotonic()
        born, end = (now - 5, now) if job is None else (job.born, job.ended or now)
        events = [(f.start, f"{f.what} to {f.target} (pid {f.pid})") for f in self.faults]
        events = [event for event in events if born - 5 < event[0] < end + 1]
        lines = [f"  at {now - self.started:.3f} s of the campaign"]
        if job is not None:
            lines.append(f"  job {job.id}: {job.kind} as {job.how}, timeout {job.timeout}")
            events += [(job.born, "asked"), *job.notes]
        lines += [f"  {when - self.started:9.3f} s  {what}" for when, what in sorted(events)]
        start = max(0, (self._log_size() if job is None else job.log_from) - _LOG_BEFORE)
        with open(self._log, "rb") as file:
            file.seek(start)
            log = file.read(_LOG_BEFORE + _LOG_AFTER).decode(errors="replace")
        return "\n".join(["", *lines, "  the daemon's log around it:", log])
