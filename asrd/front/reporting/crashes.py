"""How workers died: the last deaths, what ran then, and what is known of the cause. Pure."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asrd.safe_text import one_line
from asrd.wire.records import LastProcess

if TYPE_CHECKING:
    from asrd.wire.peer import Peer

KEPT = 20


@dataclass(eq=False, slots=True)
class JobRef:
    """A job that a worker was given.

    `audio_seconds` is None as long as nobody knows them; `log_fields` is what each log line about
    it carries.
    """

    job_id: str
    owner: "Peer"
    audio_bytes: int = 0
    audio_seconds: float | None = None
    attempt: int = 1
    trace_id: str | None = None
    log_fields: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        length = "" if self.audio_seconds is None else f"{self.audio_seconds:.1f} s, "
        return f"job {self.job_id} (attempt {self.attempt}, {length}{self.audio_bytes} bytes)"


@dataclass(eq=False, slots=True)
class Crash:
    """The end of one process that did not take its leave.

    `noticed` is how it looked from here, at once; `exit` and `stderr` come from the next process,
    which heard them from its service manager. `time` is of the wall clock, `at` of the
    scheduler's.
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

    def is_of(self, last: LastProcess) -> bool:
        """Whether it is this end of which that tells something."""
        same = None in (last.pid, self.pid) or last.pid == self.pid
        return same and (last.exit or last.stderr) is not None

    def explain(self, last: LastProcess) -> None:
        """In a peer's words, which are made fit for a line."""
        self.exit = None if last.exit is None else one_line(last.exit)
        self.stderr = None if last.stderr is None else one_line(last.stderr)

    @property
    def how(self) -> str:
        return self.noticed if self.exit is None else f"{self.exit}, {self.noticed}"

    def told_to(self, peer: "Peer") -> str:
        """One line. Root may know every job, anybody else their own: others are only counted."""
        seen = [job for job in self.jobs if peer.may_see(job.owner)]
        others = len(self.jobs) - len(seen)
        told = [f"job {job.job_id}" for job in seen] + [f"{others} of others"] * bool(others)
        return f"{self.how}, " + (f"running {', '.join(told)}" if told else "idle")

    def as_data(self, peer: "Peer", outsider: bool) -> dict[str, Any]:
        """As `status` tells it. What the engine wrote may name files: root knows it, and who may
        send audio, but no `outsider`."""
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
                    "audio_bytes": job.audio_bytes,
                    "audio_seconds": job.audio_seconds,
                }
                for job in seen
            ],
            "other_jobs": len(self.jobs) - len(seen),
        }


class Crashes:
    """The last of them, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Crash] = deque(maxlen=KEPT)

    def __iter__(self) -> Iterator[Crash]:
        return iter(self._kept)

    def add(self, crash: Crash) -> None:
        self._kept.append(crash)

    def since(self, worker: str, at: float) -> int:
        """How often that worker died from then on, as far as it is remembered."""
        return sum(crash.worker == worker and crash.at >= at for crash in self._kept)


def rfc3339(time: float) -> str:
    """2026-01-31T12:00:00.123Z, as RFC 3339 has it."""
    moment = datetime.fromtimestamp(time, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
