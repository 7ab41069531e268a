"""Counters, and percentiles checked against their definition."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.front.reporting.metrics import (
    AUDIO_BOUNDS,
    FACTOR_BOUNDS,
    TIME_BOUNDS,
    Histogram,
    Metrics,
    percentiles,
)


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
    assert metrics.jobs(retried=1, suspended=2) == {
        "accepted": 3,
        "done": 1,
        "retried": 1,
        "suspended": 2,
        "resumed": 0,
        "failed": {"bad-audio": 1},
        "refused": {"busy": 2},
        "daemon_failures": 0,
    }
    assert metrics.audio_seconds == 10.0
    assert metrics.latency_ms()["wait"]["p50"] == 250.0
    assert metrics.latency_ms()["run"]["p99"] == 2000.0
    assert metrics.real_time_factor()["p95"] == 0.2


@given(st.floats(0, 1e6), st.sampled_from([TIME_BOUNDS, AUDIO_BOUNDS, FACTOR_BOUNDS]))
def test_value_is_counted_in_its_bucket(value: float, bounds: tuple[float, ...]) -> None:
    histogram = Histogram(bounds)
    histogram.add(value)
    found = histogram.as_data()
    below = sum(bound < value for bound in bounds)
    assert found["counts"] == [int(bucket == below) for bucket in range(len(bounds) + 1)]
    assert found["sum"] == round(value, 6)


@pytest.mark.parametrize("bounds", [TIME_BOUNDS, AUDIO_BOUNDS, FACTOR_BOUNDS])
def test_bucket_holds_its_upper_bound(bounds: tuple[float, ...]) -> None:
    """The bound is `le`, less or equal."""
    histogram = Histogram(bounds)
    for bound in bounds:
        histogram.add(bound)
    assert histogram.counts == [1] * len(bounds) + [0]


def test_done_job_is_in_every_histogram() -> None:
    metrics = Metrics()
    metrics.job_done(wait=0.25, run=2.0, audio_seconds=10.0, now=1.0)
    metrics.job_done(wait=0.5, run=1.0, audio_seconds=0.0, now=2.0)
    sums = {name: (sum(of["counts"]), of["sum"]) for name, of in metrics.histograms().items()}
    assert sums == {
        "wait_seconds": (2, 0.75),
        "run_seconds": (2, 3.0),
        "audio_seconds": (2, 10.0),
        # Audio of no length has no factor.
        "real_time_factor": (1, 0.2),
    }


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
