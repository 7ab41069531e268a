"""The workers' last crashes: when, what ran, and what is known of the cause."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from asrd.errors import Cause
from asrd.safe_text import one_line
from asrd.wire.peer import Peer
from asrd.wire.records import LastProcess

KEPT = 20
# How a service manager's report reads for each cause: systemd/restart-backoff and the supervisor
# of `asrd run` write it.
_REPORTS = {
    "out of memory": Cause.OUT_OF_MEMORY,
    "(watchdog)": Cause.NO_PROGRESS,
    "killed by": Cause.SIGNAL,
    "exited with": Cause.EXIT,
}


@dataclass(eq=False, slots=True)
class JobRef:
    """A job that a worker was given.

    `audio_seconds` is None until the length is known. `in_turn`: it had the turn when the worker
    died. `log_fields` go into each log entry about it.
    """

    job_id: str
    owner: Peer
    audio_bytes: int = 0
    audio_seconds: float | None = None
    attempt: int = 1
    trace_id: str | None = None
    in_turn: bool = False
    log_fields: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        length = "" if self.audio_seconds is None else f"{self.audio_seconds:.1f} s, "
        turn = ", in its turn" if self.in_turn else ""
        return f"job {self.job_id} (attempt {self.attempt}, {length}{self.audio_bytes} bytes{turn})"


@dataclass(eq=False, slots=True)
class Crash:
    """The end of a worker process that sent no `bye`.

    `noticed` is how the front noticed it, and `seen` the cause if that shows it. `exit` and
    `stderr` come from the next process, which has them from its service manager. `time` is of the
    wall clock, `at` of the scheduler's. `loading`: it had not loaded its model.
    """

    worker: str
    time: float
    at: float
    noticed: str
    jobs: tuple[JobRef, ...] = ()
    pid: int | None = None
    model: str | None = None
    exit: str | None = None
    stderr: str | None = None
    seen: Cause | None = None
    loading: bool = False

    def is_of(self, last: LastProcess) -> bool:
        """Returns True if `last` describes this crash."""
        same = None in (last.pid, self.pid) or last.pid == self.pid
        return same and (last.exit or last.stderr) is not None

    def explain(self, last: LastProcess) -> None:
        """Adds the worker's report. The texts are a peer's, so they are made safe for a line."""
        self.exit = None if last.exit is None else one_line(last.exit)
        self.stderr = None if last.stderr is None else one_line(last.stderr)

    @property
    def cause(self) -> Cause:
        """The cause, as far as known: by what the front saw and the service manager reported. One
        that runs out of memory may be seen to make no progress."""
        causes = (cause for words, cause in _REPORTS.items() if words in (self.exit or ""))
        reported = next(causes, Cause.UNKNOWN)
        return reported if reported is Cause.OUT_OF_MEMORY else self.seen or reported

    @property
    def how(self) -> str:
        return self.noticed if self.exit is None else f"{self.exit}, {self.noticed}"

    def summary(self, peer: Peer) -> str:
        """Returns one line. It names the jobs that `peer` may see; others are only counted."""
        seen = [job for job in self.jobs if peer.may_see(job.owner)]
        others = len(self.jobs) - len(seen)
        jobs = [f"job {job.job_id}" for job in seen] + [f"{others} of others"] * bool(others)
        return f"{self.how}, " + (f"running {', '.join(jobs)}" if jobs else self.workless)

    @property
    def workless(self) -> str:
        """Words for a worker that had no job."""
        return "while it loaded its model" if self.loading else "idle"

    def as_data(self, peer: Peer, outsider: bool) -> dict[str, Any]:
        """The crash in the answer to `status`. The engine's stderr may name files, so an `outsider`
        (a client of the public socket, other than root) does not see it."""
        seen = [job for job in self.jobs if peer.may_see(job.owner)]
        return {
            "time": rfc3339(self.time),
            "worker": self.worker,
            "pid": self.pid,
            "model": self.model,
            "exit": self.exit,
            "noticed": self.noticed,
            "stderr": self.stderr if not outsider or peer.is_root else None,
            "jobs": [
                {
                    "job_id": job.job_id,
                    "trace_id": job.trace_id,
                    "uid": job.owner.uid,
                    "attempt": job.attempt,
                    "in_turn": job.in_turn,
                    "audio_bytes": job.audio_bytes,
                    "audio_seconds": job.audio_seconds,
                }
                for job in seen
            ],
            "other_jobs": len(self.jobs) - len(seen),
        }


class Crashes:
    """The last crashes, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Crash] = deque(maxlen=KEPT)
        self._write: Callable[[Iterable[Crash]], None] = lambda crashes: None

    def __iter__(self) -> Iterator[Crash]:
        return iter(self._kept)

    def keep(self, earlier: Iterable[Crash], write: Callable[[Iterable[Crash]], None]) -> None:
        """Adds the crashes that an earlier front has seen; `write` keeps all for the next one."""
        self._kept.extendleft(reversed(list(earlier)))
        self._write = write

    def add(self, crash: Crash) -> None:
        self._kept.append(crash)
        self.save()

    def save(self) -> None:
        """Keeps the crashes, after one has changed."""
        self._write(self._kept)

    def in_words(self, crash: Crash) -> str:
        """Returns how a worker was lost, for the clients of its jobs. The cause of this crash is
        not known yet, but perhaps that of an earlier one in which one of these jobs ran."""
        ran = {(job.job_id, job.owner) for job in crash.jobs}
        earlier = (each for each in reversed(self._kept) if each.exit)
        same = (
            each for each in earlier if any((job.job_id, job.owner) in ran for job in each.jobs)
        )
        before = next(same, None)
        how = f"worker {crash.worker}: {crash.noticed}"
        return how if before is None else f"{how}; the time before: {before.exit}"

    def since(self, worker: str, at: float) -> int:
        """Returns how often that worker has crashed since, as far as it is remembered."""
        return sum(crash.worker == worker and crash.at >= at for crash in self._kept)


def rfc3339(time: float) -> str:
    """Returns a time as RFC 3339 writes it: 2026-01-31T12:00:00.123Z."""
    moment = datetime.fromtimestamp(time, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
