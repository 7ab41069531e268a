"""The file that keeps the workers' last crashes for the next front.

It is a record for people, and nothing depends on it: without a directory for it nothing is kept,
and a file that is damaged is no history.
"""

import contextlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asrd.errors import FieldError
from asrd.front.reporting.crashes import KEPT, Crash, JobRef
from asrd.wire import strict_json
from asrd.wire.fields import dump, field, flag, integer, nested, number, parse, sequence, string
from asrd.wire.peer import Peer

log = logging.getLogger(__name__)

# Many times what is written.
_SIZE_MAX = 4 << 20
_JOBS_MAX = 128
_COUNT, _TEXT, _TIME = integer(0, 1 << 62), string(1 << 14), number(0, 1e12)


@dataclass(frozen=True, slots=True)
class _Job:
    """See JobRef; the owner without its process, which may be another one by now."""

    job_id: str = field(_TEXT)
    uid: int | None = field(_COUNT, None)
    audio_bytes: int = field(_COUNT, 0)
    audio_seconds: float | None = field(_TIME, None)
    attempt: int = field(_COUNT, 1)
    trace_id: str | None = field(_TEXT, None)
    in_turn: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class _Record:
    """See Crash."""

    worker: str = field(_TEXT)
    time: float = field(_TIME)
    at: float = field(_TIME)
    noticed: str = field(_TEXT)
    jobs: tuple[_Job, ...] = field(sequence(nested(_Job), _JOBS_MAX), ())
    pid: int | None = field(_COUNT, None)
    model: str | None = field(_TEXT, None)
    exit: str | None = field(_TEXT, None)
    stderr: str | None = field(_TEXT, None)
    loading: bool = field(flag, False)


@dataclass(frozen=True, slots=True)
class _File:
    crashes: tuple[_Record, ...] = field(sequence(nested(_Record), KEPT))


class CrashFile:
    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._new = self._path.with_suffix(".new")

    def read(self, now: float) -> list[Crash]:
        """Returns the crashes, oldest first. `now` is of the scheduler's clock, which starts again
        when the machine does, as /run does."""
        # Of a front that was killed while it wrote.
        self._remove_new()
        try:
            with self._path.open("rb") as file:
                data = strict_json.loads(file.read(_SIZE_MAX))
            found = parse(_File, data if isinstance(data, dict) else {})
        except FileNotFoundError:
            return []
        except (OSError, ValueError, FieldError) as error:
            log.warning("the workers' earlier crashes can't be read from %s: %s", self._path, error)
            return []
        return [_crash(record) for record in found.crashes if record.at <= now]

    def write(self, crashes: Iterable[Crash]) -> None:
        """Replaces the file; does nothing where that is impossible, as on a full disk."""
        data = dump(_File(tuple(map(_record, crashes))))
        try:
            with open(self._new, "wb", opener=_open_own) as file:
                file.write(strict_json.dumps(data))
            self._new.replace(self._path)
        except OSError:
            self._remove_new()

    def _remove_new(self) -> None:
        with contextlib.suppress(OSError):
            self._new.unlink()


def _open_own(path: str, flags: int) -> int:
    """Only for the front: the engine's last output may name files."""
    return os.open(path, flags, 0o600)


def _record(crash: Crash) -> _Record:
    jobs = (
        _Job(
            job_id=job.job_id,
            uid=job.owner.uid,
            audio_bytes=job.audio_bytes,
            audio_seconds=job.audio_seconds,
            attempt=job.attempt,
            trace_id=job.trace_id,
            in_turn=job.in_turn,
        )
        for job in crash.jobs[:_JOBS_MAX]
    )
    return _Record(
        worker=crash.worker,
        time=crash.time,
        at=crash.at,
        noticed=crash.noticed,
        jobs=tuple(jobs),
        pid=crash.pid,
        model=crash.model,
        exit=crash.exit,
        stderr=crash.stderr,
        loading=crash.loading,
    )


def _crash(record: _Record) -> Crash:
    jobs = (
        JobRef(
            job_id=job.job_id,
            owner=Peer(None, job.uid, None),
            audio_bytes=job.audio_bytes,
            audio_seconds=job.audio_seconds,
            attempt=job.attempt,
            trace_id=job.trace_id,
            in_turn=job.in_turn,
        )
        for job in record.jobs
    )
    return Crash(
        worker=record.worker,
        time=record.time,
        at=record.at,
        noticed=record.noticed,
        jobs=tuple(jobs),
        pid=record.pid,
        model=record.model,
        exit=record.exit,
        stderr=record.stderr,
        loading=record.loading,
    )
