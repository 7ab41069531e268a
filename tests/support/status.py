"""Status events of a daemon."""

from typing import Any

from tests.support.fake_daemon import Behaviour

SNAPSHOT: dict[str, Any] = {
    "state": "degraded",
    "problems": ["worker 1 is failed: no such model"],
    "version": "0.1.0",
    "uptime_s": 11520.0,
    "pid": 42,
    "sockets": [
        {"name": "asrd", "connections": 3, "connections_max": 4096},
        {"name": "wyoming", "connections": 2, "connections_max": 256},
    ],
    "queue": {"depth": 1, "max": 4, "oldest_wait_ms": 1500},
    "jobs": {
        "accepted": 20,
        "done": 12,
        "retried": 2,
        "suspended": 3,
        "resumed": 4,
        "failed": {"bad-audio": 2, "worker-crashed": 1},
        "refused": {"busy": 7},
        "daemon_failures": 1,
    },
    "live_steps": 17,
    "audio_seconds": 15120.0,
    "latency_ms": {
        "wait": {"p50": 1.0, "p95": 12.4, "p99": 300.0},
        "run": {"p50": 310, "p95": 1200, "p99": 125000},
    },
    "real_time_factor": {"p50": 0.0312, "p95": 0.05, "p99": 1.0},
    "histograms": {
        "wait_seconds": {"bounds": [0.5, 1], "counts": [7, 0, 5], "sum": 31.5},
        "run_seconds": {"bounds": [1, 5], "counts": [10, 1, 1], "sum": 130.25},
        "audio_seconds": {"bounds": [30], "counts": [2, 10], "sum": 15120.0},
        "real_time_factor": {"bounds": [0.1, 1], "counts": [11, 1, 0], "sum": 1.4},
    },
    "workers": [
        {
            "name": "0",
            "state": "busy",
            "reason": None,
            "pid": 100,
            "model": "demo",
            "device": "cpu",
            "compute_type": "int8",
            "cpu_threads": 2,
            "cores": 4,
            "jobs": [
                {"job_id": "ab12", "age_ms": 1200, "audio_seconds_done": 4, "audio_seconds": 16},
                {"job_id": "cd34", "age_ms": 300, "audio_seconds_done": 0, "audio_seconds": None},
                {"job_id": None, "age_ms": 200, "audio_seconds_done": None},
            ],
            "jobs_done": 12,
            "restarts": 1,
            "failures": {"signal": 1},
            "load_seconds": 0.31,
            "last_death": "signal 11, running job x",
        },
        {"name": "1", "state": "failed", "reason": "no such model"},
    ],
}


def in_state(state: str) -> dict[str, Behaviour]:
    """The behaviour of a FakeDaemon in that state."""
    return {"status": lambda peer, data: peer.send("status", state=state, workers=[])}
