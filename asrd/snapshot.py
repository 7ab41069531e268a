"""The daemon's status, checked; a missing key has a default."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from asrd.errors import FieldError
from asrd.wire.fields import field, flag, integer, mapping, nested, number, parse, sequence, string

# The start of the problem of a front that refuses its clients (asrd.front.refusing).
SETTINGS_WRONG = "the settings are wrong: "

# Numbers by error code.
Counts = tuple[tuple[str, int], ...]

_COUNT = integer(0, 1 << 62)
_NUMBER = number(0, 1e15)
_TEXT = string(4096)


def _counts(key: str, raw: object) -> Counts:
    found = mapping(key, raw).items()
    return tuple((code, count) for code, count in found if isinstance(count, int))


@dataclass(frozen=True, slots=True)
class Socket:
    name: str = field(_TEXT, "?")
    connections: int = field(_COUNT, 0)
    connections_max: int = field(_COUNT, 0)


@dataclass(frozen=True, slots=True)
class _Queue:
    depth: int = field(_COUNT, 0)
    max: int = field(_COUNT, 0)
    oldest_wait_ms: float = field(_NUMBER, 0.0)


@dataclass(frozen=True, slots=True)
class _Jobs:
    accepted: int = field(_COUNT, 0)
    done: int = field(_COUNT, 0)
    retried: int = field(_COUNT, 0)
    suspended: int = field(_COUNT, 0)
    resumed: int = field(_COUNT, 0)
    failed: Counts = field(_counts, ())
    refused: Counts = field(_counts, ())
    daemon_failures: int = field(_COUNT, 0)


@dataclass(frozen=True, slots=True)
class Percentiles:
    p50: float = field(_NUMBER, 0.0)
    p95: float = field(_NUMBER, 0.0)
    p99: float = field(_NUMBER, 0.0)


@dataclass(frozen=True, slots=True)
class _Latency:
    wait: Percentiles = field(nested(Percentiles), Percentiles())
    run: Percentiles = field(nested(Percentiles), Percentiles())


@dataclass(frozen=True, slots=True)
class Histogram:
    """Numbers of values: `counts[i]` are above `bounds[i - 1]` and not above `bounds[i]`; the last
    one counts those above all bounds."""

    bounds: tuple[float, ...] = field(sequence(_NUMBER, 100), ())
    counts: tuple[int, ...] = field(sequence(_COUNT, 101), (0,))
    sum: float = field(_NUMBER, 0.0)


_get_histogram = nested(Histogram)


def _histogram(key: str, raw: object) -> Histogram:
    found: Histogram = _get_histogram(key, raw)
    if any(low >= high for low, high in pairwise(found.bounds)):
        raise FieldError(f"{key}.bounds", "must rise")
    if len(found.counts) != len(found.bounds) + 1:
        raise FieldError(f"{key}.counts", "must be one more than bounds")
    return found


@dataclass(frozen=True, slots=True)
class _Histograms:
    wait_seconds: Histogram = field(_histogram, Histogram())
    run_seconds: Histogram = field(_histogram, Histogram())
    audio_seconds: Histogram = field(_histogram, Histogram())
    real_time_factor: Histogram = field(_histogram, Histogram())


@dataclass(frozen=True, slots=True)
class Job:
    job_id: str | None = field(_TEXT, None)
    age_ms: float = field(_NUMBER, 0.0)
    audio_seconds_done: float = field(_NUMBER, 0.0)
    audio_seconds: float | None = field(_NUMBER, None)


@dataclass(frozen=True, slots=True)
class Worker:
    name: str = field(_TEXT, "?")
    state: str = field(_TEXT, "?")
    spare: bool = field(flag, False)
    speakers: bool = field(flag, False)
    reason: str | None = field(_TEXT, None)
    pid: int | None = field(_COUNT, None)
    model: str | None = field(_TEXT, None)
    device: str | None = field(_TEXT, None)
    compute_type: str | None = field(_TEXT, None)
    cpu_threads: int | None = field(_COUNT, None)
    cores: int | None = field(_COUNT, None)
    jobs: tuple[Job, ...] = field(sequence(nested(Job), 1000), ())
    jobs_done: int = field(_COUNT, 0)
    restarts: int = field(_COUNT, 0)
    failures: Counts = field(_counts, ())
    load_seconds: float = field(_NUMBER, 0.0)
    last_death: str | None = field(_TEXT, None)


@dataclass(frozen=True, slots=True)
class CrashedJob:
    job_id: str = field(_TEXT, "?")
    trace_id: str | None = field(_TEXT, None)
    attempt: int = field(_COUNT, 0)
    in_turn: bool = field(flag, False)
    audio_bytes: int = field(_COUNT, 0)
    audio_seconds: float | None = field(_NUMBER, None)


@dataclass(frozen=True, slots=True)
class Crash:
    time: str = field(_TEXT, "?")
    worker: str = field(_TEXT, "?")
    pid: int | None = field(_COUNT, None)
    model: str | None = field(_TEXT, None)
    exit: str | None = field(_TEXT, None)
    noticed: str | None = field(_TEXT, None)
    stderr: str | None = field(_TEXT, None)
    jobs: tuple[CrashedJob, ...] = field(sequence(nested(CrashedJob), 1000), ())
    other_jobs: int = field(_COUNT, 0)


@dataclass(frozen=True, slots=True)
class ListedJob:
    job_id: str = field(_TEXT, "?")
    user: str = field(_TEXT, "?")
    worker: str | None = field(_TEXT, None)
    age_ms: float = field(_NUMBER, 0.0)
    work_ms: float = field(_NUMBER, 0.0)
    attempts: int = field(_COUNT, 0)
    audio_seconds_done: float = field(_NUMBER, 0.0)
    audio_seconds: float | None = field(_NUMBER, None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The data of the `status` event (docs/protocol.md)."""

    state: str = field(_TEXT)
    version: str = field(_TEXT, "?")
    uptime_s: float = field(_NUMBER, 0.0)
    pid: int | None = field(_COUNT, None)
    problems: tuple[str, ...] = field(sequence(_TEXT, 1000), ())
    connections: int = field(_COUNT, 0)
    connections_max: int = field(_COUNT, 0)
    sockets: tuple[Socket, ...] = field(sequence(nested(Socket), 100), ())
    queue: _Queue = field(nested(_Queue), _Queue())
    jobs: _Jobs = field(nested(_Jobs), _Jobs())
    ignored_events: int = field(_COUNT, 0)
    live_steps: int = field(_COUNT, 0)
    audio_seconds: float = field(_NUMBER, 0.0)
    latency_ms: _Latency = field(nested(_Latency), _Latency())
    real_time_factor: Percentiles = field(nested(Percentiles), Percentiles())
    histograms: _Histograms = field(nested(_Histograms), _Histograms())
    workers: tuple[Worker, ...] = field(sequence(nested(Worker), 10_000), ())
    # None from a front that does not know them, as its settings are wrong.
    crashes: tuple[Crash, ...] | None = field(sequence(nested(Crash), 1000), None)
    job_list: tuple[ListedJob, ...] = field(sequence(nested(ListedJob), 1000), ())


def read_snapshot(data: Mapping[str, Any]) -> Snapshot:
    """Raises FieldError naming the wrong key."""
    return parse(Snapshot, data, "status.")
