"""The variables that make a worker fast, under systemd and under `asrd run`."""

import pytest

from asrd.standalone.pool import worker_environment
from asrd.worker.environment import WORKER_ENVIRONMENT
from tests.support.paths import ROOT

UNIT = ROOT / "systemd" / "asr-worker@.service"


def test_unit_file_sets_the_workers_environment() -> None:
    words = {
        word
        for line in UNIT.read_text().splitlines()
        if line.startswith("Environment=")
        for word in line.removeprefix("Environment=").split()
    }
    assert {f"{key}={value}" for key, value in WORKER_ENVIRONMENT.items()} <= words


def test_variables_set_by_the_admin_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    environment = worker_environment("demo", None, None)
    assert environment["OPENBLAS_NUM_THREADS"] == "4"
    assert environment["MALLOC_ARENA_MAX"] == "1"
    assert environment["ASRD_WORKER_MODEL"] == "demo"
