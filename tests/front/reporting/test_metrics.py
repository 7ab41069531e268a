"""Counters, and percentiles checked against their definition."""

import math

from hypothesis import given
from hypothesis import strategies as st

from asrd.front.reporting.metrics import Metrics, percentiles


@given(st.lists(st.integers(0, 50), min_size=1))
def test_percentile_is_the_nearest_rank(values: list[int]) -> None:
    """The smallest value that at least p per cent of all are not above."""
    for name, found in percentiles(values).items():
        needed = math.ceil(int(name[1:]) * len(values) / 100 - 1e-9)
        assert found == min(v for v in values if sum(w <= v for w in values) >= needed)


def test_percentiles_are_scaled_and_rounded() -> None:
    assert percentiles([0.0123456], 1000)["p50"] == 12.3
    assert percentiles([0.0123456], digits=4)["p50"] == 0.0123
    assert percentiles([])["p50"] == 0.0


def test_metrics_count_jobs() -> None:
    metrics = Metrics()
    metrics.accepted = 3
    metrics.failed["bad-audio"] += 1
    metrics.refused["busy"] += 2
    metrics.job_done(wait=0.25, run=2.0, audio_seconds=10.0, now=1.0)
    assert metrics.jobs(retried=1) == {
        "accepted": 3,
        "done": 1,
        "retried": 1,
        "failed": {"bad-audio": 1},
        "refused": {"busy": 2},
    }
    assert metrics.audio_seconds == 10.0
    assert metrics.latency_ms()["wait"]["p50"] == 250.0
    assert metrics.latency_ms()["run"]["p99"] == 2000.0
    assert metrics.real_time_factor()["p95"] == 0.2


def test_audio_of_no_length_has_no_real_time_factor() -> None:
    metrics = Metrics()
    metrics.job_done(wait=0.0, run=1.0, audio_seconds=0.0, now=1.0)
    assert metrics.real_time_factor()["p50"] == 0.0
    assert metrics.latency_ms()["run"]["p50"] == 1000.0


def test_percentiles_are_of_the_last_thousand_jobs() -> None:
    metrics = Metrics()
    for run in (100.0, 1.0):
        for _ in range(1000):
            metrics.job_done(wait=0.0, run=run, audio_seconds=1.0, now=1.0)
    assert metrics.latency_ms()["run"]["p99"] == 1000.0
    assert metrics.done == 2000


def test_percentiles_are_computed_once_after_a_job() -> None:
    metrics = Metrics()
    metrics.job_done(0.1, 0.2, 2.0, now=1.0)
    first = metrics.latency_ms()["wait"]
    assert metrics.latency_ms()["wait"] is first
    metrics.job_done(0.3, 0.2, 2.0, now=1.0)
    assert metrics.latency_ms()["wait"] == {"p50": 100.0, "p95": 300.0, "p99": 300.0}
