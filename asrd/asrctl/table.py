"""The status snapshot as text: a page for `status`, a line for `health`, a table of crashes."""

from collections.abc import Sequence
from itertools import pairwise

from asrd.asrctl.cells import cells, ljust
from asrd.asrctl.progress import clock
from asrd.safe_text import one_line
from asrd.snapshot import Counts, Crash, CrashedJob, Job, ListedJob, Snapshot, Worker

_WORKER_COLUMNS = [
    *("WORKER", "STATE", "PID", "MODEL", "DEVICE", "COMPUTE", "THREADS"),
    *("JOBS", "AGE", "DONE", "RESTARTS", "LOAD", "LAST DEATH"),
]
_JOB_COLUMNS = ["JOB", "USER", "WORKER", "AGE", "ATTEMPTS", "DONE", "SPEED", "LEFT"]
_CRASH_COLUMNS = [
    *("TIME", "WORKER", "PID", "MODEL", "HOW"),
    *("JOB", "IN TURN", "TRACE", "ATTEMPT", "AUDIO"),
]
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def health_line(snapshot: Snapshot) -> str:
    jobs, queue = snapshot.jobs, snapshot.queue
    ready = sum(worker.state in ("ready", "busy", "asleep") for worker in snapshot.workers)
    parts = [
        f"{snapshot.state}: {ready}/{len(snapshot.workers)} workers ready",
        f"queue {queue.depth}/{queue.max}",
        f"{jobs.done} done",
        f"{_total(jobs.failed)} failed",
        *snapshot.problems,
    ]
    return " · ".join(map(one_line, parts))


def page(snapshot: Snapshot) -> str:
    blocks = [head(snapshot), totals(snapshot), _timings(snapshot), worker_table(snapshot)]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def job_table(jobs: Sequence[ListedJob]) -> list[str]:
    """Returns the names of the columns, and a line for each job."""
    return aligned([_JOB_COLUMNS, *map(_job, jobs)]) if jobs else ["no jobs that you may see"]


def _job(job: ListedJob) -> list[str]:
    done = clock(job.audio_seconds_done)
    if job.audio_seconds:
        share = min(1.0, job.audio_seconds_done / job.audio_seconds)
        done += f" of {clock(job.audio_seconds)}, {share:.0%}"
    speed = 1000 * job.audio_seconds_done / job.work_ms if job.work_ms else 0.0
    left = None
    if job.worker is not None and job.audio_seconds and speed:
        left = duration(max(0.0, job.audio_seconds - job.audio_seconds_done) / speed)
    return _row(
        [
            job.job_id,
            job.user,
            job.worker or "waits",
            duration(job.age_ms / 1000),
            job.attempts,
            done,
            f"{speed:.1f}x" if speed else None,
            left,
        ]
    )


def crash_lines(crashes: Sequence[Crash]) -> list[str]:
    """Returns a line for each death of a worker, the last one first."""
    return [
        one_line(f"{crash.time} worker {crash.worker} died: {crash.exit or crash.noticed}")
        for crash in reversed(crashes)
    ]


def crash_page(snapshot: Snapshot) -> str:
    """Returns the workers' deaths, the last one first: a line for each job, and below them the last
    output of the engine on stderr."""
    if snapshot.crashes is None:
        return one_line(": ".join(["the crashes are not known", *snapshot.problems])) + "\n"
    if not snapshot.crashes:
        return "no crash of a worker is known\n"
    rows = [_CRASH_COLUMNS]
    notes = {}
    for crash in reversed(snapshot.crashes):
        how = ", ".join(filter(None, (crash.exit, crash.noticed)))
        first = [crash.time, crash.worker, crash.pid, crash.model, how]
        jobs = [_crashed_job(job) for job in crash.jobs]
        jobs += [["(another's)", None, None, None, None]] * (crash.other_jobs > 0)
        rows += [_row([*first, *job]) for job in jobs or [[None] * 5]]
        if crash.stderr:
            notes[len(rows) - 1] = f"\n  {one_line(crash.stderr)}"
    lines = aligned(rows)
    return "".join(f"{line}{notes.get(index, '')}\n" for index, line in enumerate(lines))


def _crashed_job(job: CrashedJob) -> list[object]:
    length = f"{job.audio_bytes} bytes"
    if job.audio_seconds is not None:
        length = f"{duration(job.audio_seconds)}, {length}"
    return [job.job_id, "yes" if job.in_turn else "no", job.trace_id, job.attempt, length]


def duration(seconds: float) -> str:
    """Returns two units at most: 310 ms, 1.2 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    (size, unit), (small_size, small_unit) = next(
        pair for pair in pairwise(_UNITS) if whole >= pair[0][0]
    )
    rest = whole % size // small_size
    return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")


def head(snapshot: Snapshot) -> list[str]:
    pid = "" if snapshot.pid is None else f" · pid {snapshot.pid}"
    title = f"asrd {snapshot.version} · {snapshot.state} · up {duration(snapshot.uptime_s)}{pid}"
    reasons = [
        f"worker {worker.name}: {worker.reason}"
        for worker in snapshot.workers
        if worker.reason and not any(worker.reason in problem for problem in snapshot.problems)
    ]
    return [one_line(title), *(f"  ! {one_line(text)}" for text in [*snapshot.problems, *reasons])]


def totals(snapshot: Snapshot) -> list[str]:
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
    return aligned(rows)


def worker_table(snapshot: Snapshot) -> list[str]:
    """Returns the names of the columns, and a line for each worker."""
    if not snapshot.workers:
        return ["no workers"]
    return aligned([_WORKER_COLUMNS, *map(_worker, snapshot.workers)])


def _worker(worker: Worker) -> list[str]:
    return _row(
        [
            worker.name,
            f"{worker.state} (spare)" if worker.spare else worker.state,
            worker.pid,
            worker.model,
            worker.device,
            worker.compute_type,
            worker.cpu_threads,
            _jobs_of(worker),
            duration(max(job.age_ms for job in worker.jobs) / 1000) if worker.jobs else None,
            worker.jobs_done,
            worker.restarts,
            duration(worker.load_seconds) if worker.load_seconds else None,
            worker.last_death,
        ]
    )


def _jobs_of(worker: Worker) -> str | None:
    """Returns the ids of its jobs with how much of each is done; others' jobs are counted."""
    seen = [_with_progress(job) for job in worker.jobs if job.job_id is not None]
    others = len(worker.jobs) - len(seen)
    return ", ".join(seen + [f"({others} of others)"] * bool(others)) or None


def _with_progress(job: Job) -> str:
    if not job.audio_seconds:
        return f"{job.job_id}"
    return f"{job.job_id} {100 * min(1.0, job.audio_seconds_done / job.audio_seconds):.0f}%"


def _row(values: Sequence[object]) -> list[str]:
    return ["-" if value is None else one_line(str(value)) for value in values]


def aligned(rows: list[list[str]]) -> list[str]:
    """Returns a line for each row, with the columns as wide as their widest cell."""
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(ljust, row, widths)).rstrip() for row in rows]


def _total(counts: Counts) -> int:
    return sum(count for _, count in counts)


def _by_code(counts: Counts) -> str:
    listed = ", ".join(one_line(f"{code} {count}") for code, count in counts)
    return f" ({listed})" if listed else ""
