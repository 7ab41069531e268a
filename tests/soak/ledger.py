"""The record of a campaign: every job, every fault, every broken promise.

A client opens a job before it sends the request, adds notes, and closes the job with its outcome.
A fault is recorded before it acts. `oracle` judges each job when it closes. Jobs that kept their
promise are only counted, so that a campaign of hours needs no more memory than one of minutes.
"""

import contextlib
import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.soak.oracle import GENTLE, Fault, Job, Kind, Limits, judge

# The failures that are kept: a broken daemon breaks thousands of promises.
_SHOWN = 20
# No job lives longer, so that older faults can't have affected one.
_FAULT_SECONDS = 600.0
_LOG_BEFORE, _LOG_AFTER = 2_000, 4_000
_LINE = 500


class Ledger:
    def __init__(self, title: str, seed: int, log: Path, limits: Limits) -> None:
        self.title = title
        self.seed = seed
        self.limits = limits
        self.started = time.monotonic()
        # The open jobs by id.
        self.jobs: dict[str, Job] = {}
        # The closed jobs: the number by kind, `how` and outcome; the longest of a kind in seconds.
        self.outcomes: Counter[tuple[Kind, str, str]] = Counter()
        self.longest: dict[Kind, float] = {}
        # The transcripts after several attempts: of short and long jobs, and the named ones.
        self.retried = self.retried_long = 0
        self.retried_ids: set[str] = set()
        # The recent faults, and the number of each in all.
        self.faults: deque[Fault] = deque()
        self.struck: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        # Measurements for the report.
        self.figures: list[tuple[str, str]] = []
        self.unshown_failures = 0
        self.tricks: Counter[str] = Counter()
        # Jobs that ended with `worker-crashed`: `settle` compares them with the daemon's log.
        self._claims: list[Job] = []
        # The workers' processes that a fault struck.
        self._victims: set[int] = set()
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
        windows: int = 1,
    ) -> Job:
        """Opens a job; one that may end in a transcript needs its `text`."""
        with self._lock:
            self._last += 1
            name = f"j{self._last}" if uid is None else f"j{self._last}u{uid}"
            ahead = sum(other.windows for other in self.jobs.values())
            size = self._log_size()
            job = Job(name, kind, how, text, timeout, library, uid, size, windows, ahead)
            self.jobs[name] = job
        return job

    def close(self, job: Job, outcome: str, found: str | None = None, attempts: int = 1) -> None:
        """Judges the job. `outcome`: `transcript` (`found` is its text), an error code, `lost`."""
        if job.outcome is not None:
            self.fail(f"answered twice: {job.outcome}, then {outcome} {found!r}", job)
            return
        job.note(outcome if found is None else f"{outcome} {found[:200]!r}")
        job.ended, job.attempts, job.found = time.monotonic(), attempts, found
        job.outcome = outcome
        with self._lock:
            around = [f for f in self.faults if f.start <= job.ended and f.end >= job.born]
            self._count(job, outcome, around)
        problem = judge(job, around, self.limits)
        if problem is not None:
            self.fail(problem, job)

    def _count(self, job: Job, outcome: str, around: list[Fault]) -> None:
        del self.jobs[job.id]
        self.outcomes[job.kind, job.how, outcome] += 1
        self.longest[job.kind] = max(job.seconds, self.longest.get(job.kind, 0.0))
        if outcome == "transcript" and job.attempts > 1:
            self.retried += job.windows == 1
            self.retried_long += job.windows > 1
            self.retried_ids.add(job.id)
        # A full disk takes no log either: then no log line names the job of a dead worker.
        logged = not job.nameless and all(fault.target != "disk" for fault in around)
        if outcome == "worker-crashed" and logged:
            self._claims.append(job)

    def opened(self, kind: Kind) -> int:
        closed = sum(n for (which, _, _), n in self.outcomes.items() if which is kind)
        return closed + sum(job.kind is kind for job in list(self.jobs.values()))

    def fault(self, what: str, target: str, pid: int, act: Callable[[], None]) -> None:
        """Records the fault, then acts: no consequence may come before its cause."""
        now = time.monotonic()
        with self._lock:
            self.faults.append(Fault(now, now + self.limits.lasting(what), what, target, pid))
            self.struck[what, target] += 1
            if target.startswith("worker") and what not in GENTLE:
                self._victims.add(pid)
            while self.faults[0].end < now - _FAULT_SECONDS:
                self.faults.popleft()
        act()

    @contextlib.contextmanager
    def lasting_fault(self, what: str, target: str) -> Iterator[None]:
        """A fault that acts for as long as the block."""
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
        """True if a fault acts on this target now."""
        now = time.monotonic()
        with self._lock:
            return any(f.target == target and f.start <= now <= f.end for f in self.faults)

    def acted(self, what: str, target: str, since: float) -> bool:
        """True if that fault acted on this target at any moment after `since`."""
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
    def records_assertions(self) -> Iterator[None]:
        """Records an assertion of the daemon's own harness as a broken promise."""
        try:
            yield
        except AssertionError as error:
            self.fail(str(error)[-_LOG_AFTER:])

    def settle(self, casualties: Mapping[str, Sequence[int]]) -> None:
        """Judges the whole campaign: a job that is still open was never answered; a job that ended
        with `worker-crashed` had the turn when its workers died, and only poison may have killed
        them itself. `casualties`: by job's id, the pids of the workers that died in its turn."""
        for job in list(self.jobs.values()):
            self.fail("never answered", job)
        for job in self._claims:
            died = casualties.get(job.id, ())
            struck = sum(pid in self._victims for pid in died)
            attempts, story = self.limits.attempts, f"{len(died)} workers died in its turn"
            if len(died) < attempts:
                self.fail(f"worker-crashed, but {story}", job)
            elif job.kind is not Kind.POISON and struck < attempts:
                self.fail(f"worker-crashed, and {story}, but faults struck only {struck}", job)
            elif job.kind is Kind.POISON and len(died) - struck > attempts:
                self.fail(f"poison, but {story}, and faults struck only {struck}", job)

    def _log_size(self) -> int:
        return self._log.stat().st_size

    def _story(self, job: Job | None) -> str:
        """The job's timeline, the faults around it, and the daemon's log of that moment."""
        now = time.monotonic()
        born, end = (now - 5, now) if job is None else (job.born, job.ended or now)
        events = [(f.start, f"{f.what} to {f.target} (pid {f.pid})") for f in self.faults]
        events = [event for event in events if born - 5 < event[0] < end + 1]
        lines = [f"  at {now - self.started:.3f} s of the campaign"]
        if job is not None:
            lines.append(f"  job {job.id}: {job.kind} as {job.how}, timeout {job.timeout}")
            if job.text is not None:
                lines.append(f"  its text: {job.text[:200]!r}")
            events += [(job.born, "requested"), *job.notes]
        lines += [f"  {when - self.started:9.3f} s  {what}" for when, what in sorted(events)]
        start = max(0, (self._log_size() if job is None else job.log_from) - _LOG_BEFORE)
        with open(self._log, "rb") as file:
            file.seek(start)
            log = file.read(_LOG_BEFORE + _LOG_AFTER).decode(errors="replace")
        if job is not None and not job.nameless:
            lines += ["  the daemon's log on it:", *self._log_on(job.id)]
        return "\n".join(["", *lines, "  the daemon's log around it:", log])

    def _log_on(self, name: str) -> list[str]:
        """All lines that name a job: a death may come long after the request."""
        word = re.compile(rf"\b{re.escape(name)}\b")
        with open(self._log, errors="replace") as log:
            return [f"  {line.rstrip()[:_LINE]}" for line in log if word.search(line)]
