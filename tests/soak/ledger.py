"""What the campaign did and what came of it: every job, every fault, every broken promise.

Clients open a job before they ask, note what they are told, and close it with the outcome; whoever
kills something notes that first. `oracle` judges each job as it is closed; what kept its promise is
counted and forgotten, so that a campaign of hours needs no more memory than one of minutes.
"""

import contextlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from tests.soak import oracle

# Failures that are kept; a broken daemon breaks thousands of promises.
_SHOWN = 20
# No job lives longer: older faults can't have had to do with one.
_FAULT_SECONDS = 600.0
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
    monotonic seconds. `library`: it asks again by itself, so that one job is several requests.
    `uid`: whose it is, where the clients are several users."""

    id: str
    kind: Kind
    how: str
    text: str | None
    timeout: float | None
    library: bool
    uid: int | None
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
    """`target` is `front`, a worker's name or `disk`; it acts from `start` on, and may take until
    `end` (a stopped process dies of its watchdog)."""

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
        # Not closed yet, by id.
        self.jobs: dict[str, Job] = {}
        # Closed: how many came to what, by kind and `how`; the longest of a kind in seconds.
        self.outcomes: Counter[tuple[Kind, str, str]] = Counter()
        self.longest: dict[Kind, float] = {}
        self.retried = 0
        # Recent ones, and how many there were of each in all.
        self.faults: deque[Fault] = deque()
        self.struck: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self.unshown_failures = 0
        self.tricks: Counter[str] = Counter()
        # Told `worker-crashed`, and to be held against the daemon's log at the end.
        self._claims: list[Job] = []
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
        uid: int | None = None,
    ) -> Job:
        """`text` must be given for whatever may end in a transcript."""
        with self._lock:
            self._last += 1
            name = f"j{self._last}" if uid is None else f"j{self._last}u{uid}"
            job = Job(name, kind, how, text, timeout, library, uid, self._log_size())
            self.jobs[name] = job
        return job

    def close(self, job: Job, outcome: str, found: str | None = None, attempts: int = 1) -> None:
        """`outcome`: `transcript` (then `found` is its text), an error's code, or `lost`."""
        if job.outcome is not None:
            self.fail(f"answered twice: {job.outcome}, then {outcome} {found!r}", job)
            return
        job.note(outcome if found is None else f"{outcome} {found[:200]!r}")
        job.ended, job.attempts, job.found = time.monotonic(), attempts, found
        job.outcome = outcome
        with self._lock:
            around = [f for f in self.faults if f.start <= job.ended and f.end >= job.born]
            self._count(job, outcome, around)
        problem = oracle.judge(job, around, self.limits)
        if problem is not None:
            self.fail(problem, job)

    def _count(self, job: Job, outcome: str, around: list[Fault]) -> None:
        del self.jobs[job.id]
        self.outcomes[job.kind, job.how, outcome] += 1
        self.longest[job.kind] = max(job.seconds, self.longest.get(job.kind, 0.0))
        self.retried += outcome == "transcript" and job.attempts > 1
        # A full disk takes no log either: then nobody can say who died under whom.
        logged = not job.nameless and all(fault.target != "disk" for fault in around)
        if outcome == "worker-crashed" and logged:
            self._claims.append(job)

    def opened(self, kind: Kind) -> int:
        closed = sum(n for (which, _, _), n in self.outcomes.items() if which is kind)
        return closed + sum(job.kind is kind for job in list(self.jobs.values()))

    def fault(self, what: str, target: str, pid: int, act: Callable[[], None]) -> None:
        """Note it, and do it: in this order, so that no consequence is ever without its cause."""
        now = time.monotonic()
        with self._lock:
            self.faults.append(Fault(now, now + self.limits.lasting(what), what, target, pid))
            self.struck[what, target] += 1
            while self.faults[0].end < now - _FAULT_SECONDS:
                self.faults.popleft()
        act()

    @contextlib.contextmanager
    def lasting_fault(self, what: str, target: str) -> Iterator[None]:
        """One that acts for as long as the block, however long that is."""
        with self._lock:
            acting = Fault(time.monotonic(), math.inf, what, target, 0)
            self.faults.append(acting)
            self.struck[what, target] += 1
        try:
            yield
        finally:
            with self._lock:
                end = time.monotonic() + self.limits.lasting(what)
                self.faults[self.faults.index(acting)] = replace(acting, end=end)

    def striking(self, target: str) -> bool:
        """Whether a fault acts on this target now."""
        now = time.monotonic()
        with self._lock:
            return any(f.target == target and f.start <= now <= f.end for f in self.faults)

    def acted(self, what: str, target: str, since: float) -> bool:
        """Whether that fault acted on this target at any moment from then on."""
        with self._lock:
            return any((f.what, f.target) == (what, target) and f.end >= since for f in self.faults)

    def struck_pid(self, target: str, pid: int) -> bool:
        with self._lock:
            return any(f.target == target and f.pid == pid for f in self.faults)

    def trick(self, name: str) -> None:
        with self._lock:
            self.tricks[name] += 1

    def fail(self, problem: str, job: Job | None = None) -> None:
        with self._lock:
            if len(self.failures) >= _SHOWN:
                self.unshown_failures += 1
                return
            story = self._story(job)
            self.failures.append(f"[{self.title}, seed {self.seed}] {problem}{story}")

    @contextlib.contextmanager
    def told_of_failures(self) -> Iterator[None]:
        """What the daemon's own harness has to complain of is a broken promise too."""
        try:
            yield
        except AssertionError as error:
            self.fail(str(error)[-_LOG_AFTER:])

    def settle(self, casualties: Mapping[str, int]) -> None:
        """At the end: whatever is still open was never answered, and whoever is said to have been
        killed was, as `casualties` has it: how often each job's worker died under it."""
        for job in list(self.jobs.values()):
            self.fail("never answered", job)
        for job in self._claims:
            deaths = casualties.get(job.id, 0)
            # A library asks again under the same id where a front was killed.
            few, many = deaths < self.limits.attempts, deaths > self.limits.attempts
            if few or (many and not job.library):
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
            if job.text is not None:
                lines.append(f"  its text: {job.text[:200]!r}")
            events += [(job.born, "asked"), *job.notes]
        lines += [f"  {when - self.started:9.3f} s  {what}" for when, what in sorted(events)]
        start = max(0, (self._log_size() if job is None else job.log_from) - _LOG_BEFORE)
        with open(self._log, "rb") as file:
            file.seek(start)
            log = file.read(_LOG_BEFORE + _LOG_AFTER).decode(errors="replace")
        return "\n".join(["", *lines, "  the daemon's log around it:", log])
