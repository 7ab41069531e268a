"""The status snapshot in Prometheus' text format, for a monitoring agent (`asrctl metrics`)."""

from collections.abc import Iterable, Mapping

from asrd.asrctl.snapshot import Counts, Percentiles, Snapshot
from asrd.safe_text import quoted

STATES = ("ok", "degraded", "unavailable")
WORKER_STATES = ("starting", "loading", "ready", "busy", "asleep", "failed", "down")

# Labels and value.
_Sample = tuple[Mapping[str, str], float]


def metrics(snapshot: Snapshot) -> str:
    """Returns every family that has samples, each with its help and type."""
    families = [*_daemon(snapshot), *_jobs(snapshot), *_timings(snapshot), *_workers(snapshot)]
    return "".join(families)


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> str:
    lines = [f"asrd_{name}{_labels(labels)} {value:.15g}\n" for labels, value in samples]
    if not lines:
        return ""
    return f"# HELP asrd_{name} {text}\n# TYPE asrd_{name} {kind}\n{''.join(lines)}"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = (f"{name}={quoted(value)}" for name, value in labels.items())
    return "{" + ",".join(pairs) + "}" if labels else ""


def _gauge(name: str, text: str, value: float) -> str:
    return _family(name, "gauge", text, [({}, value)])


def _counter(name: str, text: str, value: float) -> str:
    return _family(f"{name}_total", "counter", text, [({}, value)])


def _daemon(snapshot: Snapshot) -> list[str]:
    states = [({"state": state}, state == snapshot.state) for state in STATES]
    queue = snapshot.queue
    return [
        _family("info", "gauge", "The version.", [({"version": snapshot.version}, 1)]),
        _family("state", "gauge", "The daemon's state: 1 for the current one.", states),
        _gauge("uptime_seconds", "Time since the front was started.", snapshot.uptime_s),
        _gauge("connections", "Connected clients.", snapshot.connections),
        _gauge("queue_depth", "Jobs in the queue.", queue.depth),
        _gauge("queue_max", "Jobs that the queue can hold.", queue.max),
        _gauge("queue_oldest_wait_seconds", "The longest wait.", queue.oldest_wait_ms / 1000),
    ]


def _jobs(snapshot: Snapshot) -> list[str]:
    jobs = snapshot.jobs
    return [
        _counter("jobs_accepted", "Jobs accepted.", jobs.accepted),
        _counter("jobs_done", "Jobs transcribed.", jobs.done),
        _counter("jobs_retried", "Starts after a worker's death.", jobs.retried),
        _by_code("jobs_failed_total", "Jobs failed.", jobs.failed),
        _by_code("jobs_refused_total", "Requests refused.", jobs.refused),
        _counter("audio_seconds", "Audio transcribed.", snapshot.audio_seconds),
    ]


def _by_code(name: str, text: str, counts: Counts) -> str:
    return _family(name, "counter", text, [({"code": code}, count) for code, count in counts])


def _timings(snapshot: Snapshot) -> list[str]:
    latency = snapshot.latency_ms
    return [
        _summary("wait_seconds", "Waits of the last jobs.", latency.wait, 1000),
        _summary("run_seconds", "Runs of the last jobs.", latency.run, 1000),
        _summary("real_time_factor", "Run time over audio time.", snapshot.real_time_factor, 1),
    ]


def _summary(name: str, text: str, values: Percentiles, scale: float) -> str:
    quantiles = {"0.5": values.p50, "0.95": values.p95, "0.99": values.p99}
    samples = [({"quantile": key}, value / scale) for key, value in quantiles.items()]
    return _family(name, "summary", text, samples)


def _workers(snapshot: Snapshot) -> list[str]:
    workers = [({"worker": worker.name}, worker) for worker in snapshot.workers]
    states = [
        ({**name, "state": state}, state == worker.state)
        for name, worker in workers
        for state in WORKER_STATES
    ]
    done = [(name, worker.jobs_done) for name, worker in workers]
    restarts = [(name, worker.restarts) for name, worker in workers]
    loads = [(name, worker.load_seconds) for name, worker in workers]
    return [
        _family("worker_state", "gauge", "The worker's state: 1 for the current one.", states),
        _family("worker_jobs_done_total", "counter", "Jobs that it transcribed.", done),
        _family("worker_restarts_total", "counter", "Its deaths.", restarts),
        _family("worker_load_seconds", "gauge", "Load time of its last start.", loads),
    ]
