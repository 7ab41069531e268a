"""The status snapshot is checked when it is read."""

from typing import Any

import pytest

from asrd.asrctl.snapshot import read_snapshot
from asrd.errors import FieldError


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
    ],
)
def test_wrong_key_is_named(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(FieldError, match=problem):
        read_snapshot(wrong)
