"""The status snapshot as metrics, for `asrctl metrics` and asrd-http: in Prometheus' text format
0.0.4 or in OpenMetrics 1.0. docs/monitoring.md describes them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from asrd.errors import Cause, Code
from asrd.safe_text import quoted
from asrd.snapshot import Counts, Histogram, Snapshot

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

STATES = ("ok", "degraded", "unavailable")
WORKER_STATES = ("starting", "loading", "ready", "busy", "asleep", "failed", "down")
# The `code` of jobs that ended with a transcript, beside those of Code.
DONE = "ok"
# The statuses that asrd-http answers with.
HTTP_STATUSES = (200, 400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 431, *range(500, 505))

_Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Family:
    """A metric: its samples are what its name ends with, labels and value."""

    name: str
    kind: str
    text: str
    samples: tuple[tuple[str, _Labels, float], ...]


def metrics(
    snapshot: Snapshot | None, openmetrics: bool = False, responses: Mapping[int, int] | None = None
) -> str:
    """Returns all metrics in one of the formats, with the answers of asrd-http by their status;
    without a snapshot, those that need no daemon."""
    families = [_one("gauge", "up", "1 if the daemon answers, 0 if not.", snapshot is not None)]
    if snapshot is not None:
        families += [*_daemon(snapshot), *_jobs(snapshot), *_timings(snapshot), *_workers(snapshot)]
    if responses is not None:
        counts = ((str(status), count) for status, count in sorted(responses.items()))
        found = _each(map(str, HTTP_STATUSES), tuple(counts), "code")
        families.append(_family("counter", "http_responses", "Answers over HTTP.", found))
    lines = [line for family in families for line in _lines(family, openmetrics)]
    return "\n".join([*lines, "# EOF"] if openmetrics else lines) + "\n"


def wants_openmetrics(accept: str) -> bool:
    """Returns True if an `Accept` header (RFC 9110, 12.5.1) asks for OpenMetrics and does not
    prefer text/plain. All others get the older text, which a browser shows."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for entry in accept.lower().split(","):
        kind, *parameters = map(str.strip, entry.split(";"))
        if kind in weights:
            weights[kind] = max(weights[kind], _weight(parameters))
    wanted, text = weights.values()
    return wanted > 0 and wanted >= text


def _weight(parameters: Iterable[str]) -> float:
    """Returns the media range's `q`: 1 by default, 0 if it is no number."""
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


# --- the formats ----------------------------------------------------------------------------------


def _lines(family: _Family, openmetrics: bool) -> Iterator[str]:
    """In OpenMetrics the name of a counter or info is without the end of its samples' names; the
    older format has no type info."""
    name, kind = f"asrd_{family.name}", family.kind
    end = {"counter": "_total", "info": "_info"}.get(kind, "")
    shown = name if openmetrics else name + end
    yield f"# HELP {shown} {family.text}"
    yield f"# TYPE {shown} {'gauge' if kind == 'info' and not openmetrics else kind}"
    for part, labels, value in family.samples:
        pairs = ",".join(f"{label}={quoted(text)}" for label, text in labels.items())
        yield f"{name}{end}{part}{f'{{{pairs}}}' if pairs else ''} {value:.15g}"


def _family(kind: str, name: str, text: str, samples: Iterable[tuple[_Labels, float]]) -> _Family:
    return _Family(name, kind, text, tuple(("", labels, value) for labels, value in samples))


def _one(kind: str, name: str, text: str, value: float) -> _Family:
    return _family(kind, name, text, [({}, value)])


def _histogram(name: str, text: str, found: Histogram) -> _Family:
    """The buckets are cumulative, as both formats require."""
    bounds = [*map(str, found.bounds), "+Inf"]
    sums = list(accumulate(found.counts))
    buckets = [("_bucket", {"le": le}, count) for le, count in zip(bounds, sums, strict=True)]
    ends: list[tuple[str, _Labels, float]] = [("_sum", {}, found.sum), ("_count", {}, sums[-1])]
    return _Family(name, "histogram", text, (*buckets, *ends))


def _each(names: Iterable[str], counts: Counts, label: str) -> list[tuple[_Labels, float]]:
    """Returns a sample for each name, also 0: a counter that appears only with its first event
    hides that event from `rate` and `increase`."""
    values = {**dict.fromkeys(map(str, names), 0), **dict(counts)}
    return [({label: name}, value) for name, value in values.items()]


# --- the metrics ----------------------------------------------------------------------------------


def _daemon(snapshot: Snapshot) -> list[_Family]:
    states = [({"state": state}, state == snapshot.state) for state in STATES]
    sockets = [({"socket": each.name}, each) for each in snapshot.sockets]
    connections = [(name, of.connections) for name, of in sockets]
    limits = [(name, of.connections_max) for name, of in sockets]
    queue = snapshot.queue
    return [
        _family("info", "build", "The daemon's version.", [({"version": snapshot.version}, 1)]),
        _family("gauge", "state", "The daemon's state: 1 for the current one.", states),
        _one("gauge", "uptime_seconds", "Time since its start.", snapshot.uptime_s),
        _family("gauge", "connections", "Clients at each socket.", connections),
        _family("gauge", "connections_limit", "Clients at most.", limits),
        _one("gauge", "queue_jobs", "Jobs that wait.", queue.depth),
        _one("gauge", "queue_limit", "Waiting jobs at most.", queue.max),
        _one(
            "gauge",
            "queue_oldest_wait_seconds",
            "Time that the oldest waiting job has waited.",
            queue.oldest_wait_ms / 1000,
        ),
    ]


def _jobs(snapshot: Snapshot) -> list[_Family]:
    jobs = snapshot.jobs
    ended = _each([DONE, *Code], ((DONE, jobs.done), *jobs.failed), "code")
    refused = _each(Code, jobs.refused, "code")
    return [
        _one("counter", "jobs_accepted", "Accepted requests.", jobs.accepted),
        _family("counter", "jobs_ended", "Answered jobs, by error code; ok: transcribed.", ended),
        _family("counter", "jobs_refused", "Requests that were not accepted.", refused),
        _one(
            "counter",
            "jobs_daemon_failures",
            "Jobs that failed through the daemon's fault.",
            jobs.daemon_failures,
        ),
        _one("counter", "jobs_retried", "Restarts of jobs after a worker's death.", jobs.retried),
        _one("counter", "jobs_suspended", "Jobs that a worker gave back.", jobs.suspended),
        _one("counter", "jobs_resumed", "Starts in the middle of a recording.", jobs.resumed),
        _one("counter", "live_steps", "Decoded pieces of live streams.", snapshot.live_steps),
        _one("counter", "ignored_events", "Events of an unknown type.", snapshot.ignored_events),
    ]


def _timings(snapshot: Snapshot) -> list[_Family]:
    found = snapshot.histograms
    return [
        _histogram("job_wait_seconds", "Time from arrival to the last start.", found.wait_seconds),
        _histogram("job_run_seconds", "Time from there to the answer.", found.run_seconds),
        _histogram("job_audio_seconds", "Length of the recording.", found.audio_seconds),
        _histogram(
            "job_real_time_factor",
            "Run time divided by the recording's length.",
            found.real_time_factor,
        ),
    ]


def _workers(snapshot: Snapshot) -> list[_Family]:
    workers = [({"worker": worker.name}, worker) for worker in snapshot.workers]
    infos = [
        ({**name, "model": of.model or "", "device": of.device or ""}, 1) for name, of in workers
    ]
    states = [
        ({**name, "state": state}, state == worker.state)
        for name, worker in workers
        for state in WORKER_STATES
    ]
    failures = [
        ({**name, **cause}, count)
        for name, worker in workers
        for cause, count in _each(Cause, worker.failures, "cause")
    ]
    jobs = [(name, len(worker.jobs)) for name, worker in workers]
    done = [(name, worker.jobs_done) for name, worker in workers]
    loads = [(name, worker.load_seconds) for name, worker in workers]
    return [
        _family("info", "worker", "The worker's model and device.", infos),
        _family("gauge", "worker_state", "The worker's state: 1 for the current one.", states),
        _family("gauge", "worker_jobs", "Jobs that take turns on it.", jobs),
        _family("counter", "worker_jobs_done", "Jobs that its processes transcribed.", done),
        _family("counter", "worker_failures", "Ends of its processes, by cause.", failures),
        _family("gauge", "worker_load_seconds", "Load time of its last start.", loads),
    ]
