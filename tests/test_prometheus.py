"""The metrics, read by Prometheus' own Python parsers in both formats."""

from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from asrd.errors import Cause, Code
from asrd.front.scheduling.workers import WorkerState
from asrd.prometheus import (
    OPENMETRICS_TYPE,
    STATES,
    TEXT_TYPE,
    WORKER_STATES,
    metrics,
    wants_openmetrics,
)
from asrd.snapshot import read_snapshot
from tests.support.status import SNAPSHOT

# Name with labels, and value.
Samples = dict[str, float]


def parsed(data: dict[str, Any], in_openmetrics: bool) -> dict[str, tuple[str, Samples]]:
    """The type and the samples of each metric; each has a help text, and no sample comes twice."""
    text = metrics(read_snapshot(data), in_openmetrics)
    parse = (
        openmetrics.text_string_to_metric_families
        if in_openmetrics
        else text_string_to_metric_families
    )
    found: dict[str, tuple[str, Samples]] = {}
    for family in parse(text):
        assert family.documentation.endswith(".")
        assert family.name not in found
        samples: Samples = {}
        for sample in family.samples:
            labels = ",".join(f"{label}={value}" for label, value in sample.labels.items())
            key = f"{sample.name}{{{labels}}}"
            assert key not in samples
            samples[key] = sample.value
        found[family.name] = family.type, samples
    return found


def flat(data: dict[str, Any], in_openmetrics: bool) -> Samples:
    samples = (samples for _, samples in parsed(data, in_openmetrics).values())
    return {key: value for each in samples for key, value in each.items()}


in_both = pytest.mark.parametrize("in_openmetrics", [False, True], ids=["text", "openmetrics"])


@in_both
def test_metrics_have_the_figures_of_the_snapshot(in_openmetrics: bool) -> None:
    samples = flat(SNAPSHOT, in_openmetrics)
    assert samples["asrd_build_info{version=0.1.0}"] == 1
    assert [samples[f"asrd_state{{state={state}}}"] for state in STATES] == [0, 1, 0]
    assert samples["asrd_connections{socket=asrd}"] == 3
    assert samples["asrd_connections_limit{socket=wyoming}"] == 256
    assert samples["asrd_queue_jobs{}"] == 1
    assert samples["asrd_queue_limit{}"] == 4
    assert samples["asrd_queue_oldest_wait_seconds{}"] == 1.5
    assert samples["asrd_jobs_ended_total{code=ok}"] == 12
    assert samples["asrd_jobs_ended_total{code=worker-crashed}"] == 1
    assert samples["asrd_jobs_daemon_failures_total{}"] == 1
    assert samples["asrd_jobs_refused_total{code=busy}"] == 7
    assert samples["asrd_jobs_suspended_total{}"] == 3
    assert samples["asrd_jobs_resumed_total{}"] == 4
    assert samples["asrd_live_steps_total{}"] == 17
    assert samples["asrd_worker_info{worker=0,model=demo,device=cpu}"] == 1
    assert samples["asrd_worker_jobs{worker=0}"] == 3
    assert samples["asrd_worker_failures_total{worker=0,cause=signal}"] == 1
    states = [key for key in samples if key.startswith("asrd_worker_state{") and samples[key]]
    assert states == [
        "asrd_worker_state{worker=0,state=busy}",
        "asrd_worker_state{worker=1,state=failed}",
    ]


@in_both
def test_histograms_are_cumulative(in_openmetrics: bool) -> None:
    kind, samples = parsed(SNAPSHOT, in_openmetrics)["asrd_job_wait_seconds"]
    assert kind == "histogram"
    assert samples == {
        "asrd_job_wait_seconds_bucket{le=0.5}": 7,
        "asrd_job_wait_seconds_bucket{le=1.0}": 7,
        "asrd_job_wait_seconds_bucket{le=+Inf}": 12,
        "asrd_job_wait_seconds_sum{}": 31.5,
        "asrd_job_wait_seconds_count{}": 12,
    }


@in_both
def test_every_counter_is_there_before_its_first_event(in_openmetrics: bool) -> None:
    """Else `rate` and `increase` miss that event."""
    first = {"state": "ok", "workers": [{"name": "0"}]}
    samples = flat(first, in_openmetrics)
    assert samples["asrd_jobs_ended_total{code=ok}"] == 0
    for code in Code:
        assert samples[f"asrd_jobs_ended_total{{code={code}}}"] == 0
        assert samples[f"asrd_jobs_refused_total{{code={code}}}"] == 0
    for cause in Cause:
        assert samples[f"asrd_worker_failures_total{{worker=0,cause={cause}}}"] == 0
    assert parsed(first, in_openmetrics).keys() == parsed(SNAPSHOT, in_openmetrics).keys()


def test_both_formats_have_the_same_samples() -> None:
    assert flat(SNAPSHOT, in_openmetrics=False) == flat(SNAPSHOT, in_openmetrics=True)


def test_text_has_no_end_mark_and_openmetrics_has() -> None:
    """The textfile collector wants none, OpenMetrics requires it."""
    made = read_snapshot(SNAPSHOT)
    assert "# EOF" not in metrics(made)
    assert metrics(made, openmetrics=True).endswith("\n# EOF\n")


def test_worker_states_are_those_of_the_scheduler() -> None:
    assert set(WORKER_STATES) == {state.value for state in WorkerState} | {"busy"}


@in_both
def test_label_cannot_break_its_line(in_openmetrics: bool) -> None:
    risky = {"state": "ok", "workers": [{"name": 'a"b\\c\nd\x1b'}]}
    _, jobs = parsed(risky, in_openmetrics)["asrd_worker_jobs"]
    assert list(jobs) == ['asrd_worker_jobs{worker=a"b\\c\\nd\\x1b}']


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text", True),
        (OPENMETRICS_TYPE, True),
        (TEXT_TYPE, False),
        ("text/plain, application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;q=0, text/plain;q=0.1", False),
        ("application/openmetrics-text;q=often", False),
        ("Application/OpenMetrics-Text ; q=0.5 , text/plain;version=0.0.4;q=0.4", True),
        # Prometheus 2.42 and 3.5.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
            "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            True,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
    ],
)
def test_format_by_accept(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted
