"""The status snapshot in Prometheus' text format, for a monitoring agent (`asrctl metrics`)."""

from collections.abc import Iterable, Mapping
from typing import Any

from asrd.asrctl.table import Percentiles, Snapshot
from asrd.safe_text import fit

STATES = ("ok", "degraded", "unavailable")
WORKER_STATES = ("starting", "loading", "ready", "busy", "asleep", "failed", "down")

# Labels and value.
_Sample = tuple[Mapping[str, str], float]


def metrics(snapshot: Snapshot) -> str:
    """Every family with its help, type and samples; those without a sample are left out."""
    families = [*_daemon(snapshot), *_jobs(snapshot), *_timings(snapshot), *_workers(snapshot)]
    return "".join(families)


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> str:
    lines = [f"asrd_{name}{_labels(labels)} {value:.15g}\n" for labels, value in samples]
    if not lines:
        return ""
    return f"# HELP asrd_{name} {text}\n# TYPE asrd_{name} {kind}\n{''.join(lines)}"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}" if labels else ""


def _escaped(value: str) -> str:
    # Line feeds are gone after `fit`, which writes them as a backslash and an n.
    return fit(value).replace("\\", "\\\\").replace('"', '\\"')


def _gauge(name: str, text: str, value: float) -> str:
    return _family(name, "gauge", text, [({}, value)])


def _counter(name: str, text: str, value: float) -> str:
    return _family(f"{name}_total", "counter", text, [({}, value)])


def _daemon(snapshot: Snapshot) -> list[str]:
    states = [({"state": state}, float(state == snapshot.state)) for state in STATES]
    queue = snapshot.queue
    return [
        _family("info", "gauge", "The version.", [({"version": snapshot.version}, 1)]),
        _family("state", "gauge", "Whether a request could be served now.", states),
        _gauge("uptime_seconds", "Since the front was started.", snapshot.uptime_s),
        _gauge("connections", "Clients connected.", snapshot.connections),
        _gauge("queue_depth", "Jobs that wait.", queue.depth),
        _gauge("queue_max", "Jobs that may wait.", queue.max),
        _gauge("queue_oldest_wait_seconds", "The longest wait.", queue.oldest_wait_ms / 1000),
    ]


def _jobs(snapshot: Snapshot) -> list[str]:
    jobs = snapshot.jobs
    return [
        _counter("jobs_accepted", "Jobs accepted.", jobs.accepted),
        _counter("jobs_done", "Jobs transcribed.", jobs.done),
        _counter("jobs_retried", "Starts after a worker's death.", jobs.retried),
        _family("jobs_failed_total", "counter", "Jobs failed.", _by_code(jobs.failed)),
        _family("jobs_refused_total", "counter", "Requests refused.", _by_code(jobs.refused)),
        _counter("audio_seconds", "Audio transcribed.", snapshot.audio_seconds),
    ]


def _by_code(counts: Mapping[str, Any] | None) -> list[_Sample]:
    found = (counts or {}).items()
    return [({"code": code}, count) for code, count in found if isinstance(count, int)]


def _timings(snapshot: Snapshot) -> list[str]:
    latency = snapshot.latency_ms
    return [
        _summary("wait_seconds", "Waits of the last jobs.", latency.wait, 1000),
        _summary("run_seconds", "Runs of the last jobs.", latency.run, 1000),
        _summary("real_time_factor", "Run over audio.", snapshot.real_time_factor, 1),
    ]


def _summary(name: str, text: str, values: Percentiles, scale: float) -> str:
    quantiles = {"0.5": values.p50, "0.95": values.p95, "0.99": values.p99}
    samples = [({"quantile": key}, value / scale) for key, value in quantiles.items()]
    return _family(name, "summary", text, samples)


def _workers(snapshot: Snapshot) -> list[str]:
    states, done, restarts, loads = [], [], [], []
    for worker in snapshot.workers:
        name = {"worker": worker.name}
        states += [({**name, "state": s}, float(s == worker.state)) for s in WORKER_STATES]
        done.append((name, float(worker.jobs_done)))
        restarts.append((name, float(worker.restarts)))
        loads.append((name, worker.load_seconds))
    return [
        _family("worker_state", "gauge", "What the worker does.", states),
        _family("worker_jobs_done_total", "counter", "Jobs that it transcribed.", done),
        _family("worker_restarts_total", "counter", "Its deaths.", restarts),
        _family("worker_load_seconds", "gauge", "Its last start's loading.", loads),
    ]
