"""The status snapshot as people read it: a page for `status`, a line for `health`.

What the daemon says is checked, not believed; a key that is missing shows as nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asrd.asrctl.cells import cells, ljust
from asrd.safe_text import one_line
from asrd.wire.fields import field, flag, integer, mapping, nested, number, parse, sequence, string

_COLUMNS = [
    *("WORKER", "STATE", "PID", "MODEL", "DEVICE", "COMPUTE"),
    *("JOB", "AGE", "DONE", "RESTARTS", "LOAD", "LAST DEATH"),
]
_COUNT = integer(0, 1 << 62)
_MILLISECONDS = number(0, 1e15)
_TEXT = string(4096)


@dataclass(frozen=True, slots=True)
class _Queue:
    depth: int = field(_COUNT, 0)
    max: int = field(_COUNT, 0)
    oldest_wait_ms: float = field(_MILLISECONDS, 0.0)


@dataclass(frozen=True, slots=True)
class _Jobs:
    accepted: int = field(_COUNT, 0)
    done: int = field(_COUNT, 0)
    retried: int = field(_COUNT, 0)
    failed: dict[str, Any] | None = field(mapping, None)
    refused: dict[str, Any] | None = field(mapping, None)


@dataclass(frozen=True, slots=True)
class Percentiles:
    p50: float = field(_MILLISECONDS, 0.0)
    p95: float = field(_MILLISECONDS, 0.0)
    p99: float = field(_MILLISECONDS, 0.0)


@dataclass(frozen=True, slots=True)
class _Latency:
    wait: Percentiles = field(nested(Percentiles), Percentiles())
    run: Percentiles = field(nested(Percentiles), Percentiles())


@dataclass(frozen=True, slots=True)
class _Worker:
    name: str = field(_TEXT, "?")
    state: str = field(_TEXT, "?")
    spare: bool = field(flag, False)
    reason: str | None = field(_TEXT, None)
    pid: int | None = field(_COUNT, None)
    model: str | None = field(_TEXT, None)
    device: str | None = field(_TEXT, None)
    compute_type: str | None = field(_TEXT, None)
    job_id: str | None = field(_TEXT, None)
    job_age_ms: float = field(_MILLISECONDS, 0.0)
    jobs_done: int = field(_COUNT, 0)
    restarts: int = field(_COUNT, 0)
    load_seconds: float = field(_MILLISECONDS, 0.0)
    last_death: str | None = field(_TEXT, None)


@dataclass(frozen=True, slots=True)
class _CrashedJob:
    job_id: str = field(_TEXT, "?")
    trace_id: str | None = field(_TEXT, None)
    attempt: int = field(_COUNT, 0)
    audio_bytes: int = field(_COUNT, 0)
    audio_seconds: float | None = field(_MILLISECONDS, None)


@dataclass(frozen=True, slots=True)
class _Crash:
    time: str = field(_TEXT, "?")
    worker: str = field(_TEXT, "?")
    pid: int | None = field(_COUNT, None)
    model: str | None = field(_TEXT, None)
    exit: str | None = field(_TEXT, None)
    noticed: str = field(_TEXT, "?")
    stderr: str | None = field(_TEXT, None)
    jobs: tuple[_CrashedJob, ...] = field(sequence(nested(_CrashedJob), 1000), ())
    other_jobs: int = field(_COUNT, 0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The promised keys of the `status` event (docs/protocol.md)."""

    state: str = field(_TEXT)
    version: str = field(_TEXT, "?")
    uptime_s: float = field(_MILLISECONDS, 0.0)
    pid: int | None = field(_COUNT, None)
    problems: tuple[str, ...] = field(sequence(_TEXT, 1000), ())
    connections: int = field(_COUNT, 0)
    queue: _Queue = field(nested(_Queue), _Queue())
    jobs: _Jobs = field(nested(_Jobs), _Jobs())
    audio_seconds: float = field(_MILLISECONDS, 0.0)
    latency_ms: _Latency = field(nested(_Latency), _Latency())
    real_time_factor: Percentiles = field(nested(Percentiles), Percentiles())
    workers: tuple[_Worker, ...] = field(sequence(nested(_Worker), 10_000), ())
    crashes: tuple[_Crash, ...] = field(sequence(nested(_Crash), 1000), ())


def read_snapshot(data: Mapping[str, Any]) -> Snapshot:
    """Raises FieldError naming what the daemon got wrong."""
    return parse(Snapshot, data, "status.")


def health_line(snapshot: Snapshot) -> str:
    jobs, queue = snapshot.jobs, snapshot.queue
    ready = sum(worker.state in ("ready", "busy", "asleep") for worker in snapshot.workers)
    parts = [
        f"{one_line(snapshot.state)}: {ready}/{len(snapshot.workers)} workers ready",
        f"queue {queue.depth}/{queue.max}",
        f"{jobs.done} done",
        f"{_total(jobs.failed)} failed",
        *(one_line(problem) for problem in snapshot.problems),
    ]
    return " · ".join(parts)


def page(snapshot: Snapshot) -> str:
    """The whole snapshot, several lines."""
    blocks = [_head(snapshot), _totals(snapshot), _timings(snapshot), _workers(snapshot)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def crash_page(snapshot: Snapshot) -> str:
    """How the workers died, the last death first: a line each, and what the engine last said."""
    if not snapshot.crashes:
        return "no worker has died since asrd was started\n"
    rows = [["TIME", "WORKER", "PID", "MODEL", "HOW", "JOB", "TRACE", "ATTEMPT", "AUDIO"]]
    said: list[list[str]] = [[]]
    for crash in reversed(snapshot.crashes):
        how = crash.exit or crash.noticed
        first = [crash.time, crash.worker, crash.pid, crash.model, how]
        jobs = [_crashed_job(job) for job in crash.jobs]
        jobs += [["(another's)", *[None] * 3]] * (crash.other_jobs > 0)
        for job in jobs or [[None] * 4]:
            rows.append(_cells([*first, *job]))
            said.append([])
        said[-1] = [f"  {one_line(crash.stderr)}"] if crash.stderr else []
    lines = zip(_aligned(rows), said, strict=True)
    return "\n".join(line for row, below in lines for line in (row, *below)) + "\n"


def _crashed_job(job: _CrashedJob) -> list[object]:
    length = f"{job.audio_bytes} bytes"
    if job.audio_seconds is not None:
        length = f"{duration(job.audio_seconds)}, {length}"
    return [job.job_id, job.trace_id, job.attempt, length]


def duration(seconds: float) -> str:
    """Two units at most: 310 ms, 1.2 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small_size, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def _head(snapshot: Snapshot) -> list[str]:
    pid = "" if snapshot.pid is None else f" · pid {snapshot.pid}"
    title = (
        f"asrd {one_line(snapshot.version)} · {one_line(snapshot.state)} · "
        f"up {duration(snapshot.uptime_s)}{pid}"
    )
    reasons = [
        f"worker {worker.name}: {worker.reason}"
        for worker in snapshot.workers
        if worker.reason and not any(worker.reason in problem for problem in snapshot.problems)
    ]
    return [title, *(f"  ! {one_line(text)}" for text in [*snapshot.problems, *reasons])]


def _totals(snapshot: Snapshot) -> list[str]:
    queue, jobs = snapshot.queue, snapshot.jobs
    oldest = f", the oldest for {duration(queue.oldest_wait_ms / 1000)}" if queue.depth else ""
    counts = [
        f"{jobs.done} done",
        f"{_total(jobs.failed)} failed{_by_code(jobs.failed)}",
        f"{_total(jobs.refused)} refused{_by_code(jobs.refused)}",
        f"{jobs.retried} retried",
    ]
    return [
        f"queue  {queue.depth} of {queue.max} waiting{oldest}",
        f"jobs   {jobs.accepted} accepted: {', '.join(counts)}",
        f"audio  {duration(snapshot.audio_seconds)}",
    ]


def _timings(snapshot: Snapshot) -> list[str]:
    rows = [["", "p50", "p95", "p99"]]
    latency = snapshot.latency_ms
    for name, values in (("wait", latency.wait), ("run", latency.run)):
        rows.append([name, *(duration(v / 1000) for v in (values.p50, values.p95, values.p99))])
    factor = snapshot.real_time_factor
    rows.append(["run / audio", *(f"{v:.3f}" for v in (factor.p50, factor.p95, factor.p99))])
    return _aligned(rows)


def _workers(snapshot: Snapshot) -> list[str]:
    if not snapshot.workers:
        return ["no workers"]
    rows = [_COLUMNS]
    for worker in snapshot.workers:
        running = worker.state == "busy" or worker.job_id is not None
        values = [
            worker.name,
            f"{worker.state} (spare)" if worker.spare else worker.state,
            worker.pid,
            worker.model,
            worker.device,
            worker.compute_type,
            worker.job_id or ("(another's)" if running else None),
            duration(worker.job_age_ms / 1000) if running else None,
            worker.jobs_done,
            worker.restarts,
            duration(worker.load_seconds) if worker.load_seconds else None,
            worker.last_death,
        ]
        rows.append(_cells(values))
    return _aligned(rows)


def _cells(values: Sequence[object]) -> list[str]:
    return ["-" if value is None else one_line(str(value)) for value in values]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(ljust, row, widths)).rstrip() for row in rows]


def _total(counts: Mapping[str, Any] | None) -> int:
    return sum(count for count in (counts or {}).values() if isinstance(count, int))


def _by_code(counts: Mapping[str, Any] | None) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(one_line(f"{code} {count}") for code, count in counts.items()) + ")"
