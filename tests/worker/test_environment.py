"""The variables that make a worker fast, under systemd and under `asrd run`."""

import os

import pytest

from asrd.standalone.pool import threads_variable, worker_environment
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


@pytest.mark.parametrize(
    ("cores", "workers", "threads"),
    [(8, 1, "4"), (8, 2, "4"), (8, 4, "2"), (2, 2, "1"), (2, 3, "1")],
)
def test_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, threads: str
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert threads_variable(workers) == {"OMP_NUM_THREADS": threads}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads_variable(workers) == {"OMP_NUM_THREADS": "7"}
