"""The status snapshot is checked when it is read."""

from typing import Any

import pytest

from asrd.errors import FieldError
from asrd.snapshot import read_snapshot


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({}, "status.state: is missing"),
        (
            {"state": "ok", "workers": [{"pid": "x"}]},
            r"status.workers\[0\].pid: must be an integer",
        ),
        ({"state": "ok", "jobs": {"failed": []}}, "status.jobs.failed: must be an object"),
        (
            {"state": "ok", "latency_ms": {"wait": {"p50": float("nan")}}},
            "status.latency_ms.wait.p50: must be",
        ),
        (
            {
                "state": "ok",
                "histograms": {"wait_seconds": {"bounds": [1, 1], "counts": [0, 0, 0]}},
            },
            "status.histograms.wait_seconds.bounds: must rise",
        ),
        (
            {"state": "ok", "histograms": {"run_seconds": {"bounds": [1], "counts": [0]}}},
            "status.histograms.run_seconds.counts: must be one more than bounds",
        ),
    ],
)
def test_wrong_key_is_named(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(FieldError, match=problem):
        read_snapshot(wrong)
