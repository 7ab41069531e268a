"""The script that systemd runs around a worker, by itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "systemd" / "restart-backoff"
KILLED = {"EXIT_CODE": "killed", "EXIT_STATUS": "SEGV"}


def run(
    event: str, file: Path, result: str = "signal", end: dict[str, str] = KILLED
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), event, str(file)],
        env={**os.environ, **end, "SERVICE_RESULT": result},
        capture_output=True,
        text=True,
        check=False,
    )


def counted(file: Path) -> str:
    return file.read_text().strip() if file.exists() else "0"


def test_starts_are_counted_until_the_worker_is_ready(tmp_path: Path) -> None:
    file = tmp_path / "0"
    for starts in ("1", "2"):
        assert run("pause", file).returncode == 0
        assert run("ended", file).returncode == 0
        assert counted(file) == starts
    assert (tmp_path / "0.env").read_text() == "ASRD_LAST_EXIT='killed by SIGSEGV'\n"
    assert run("ready", file).returncode == 0
    assert counted(file) == "0"


def test_pause_grows_from_the_fifth_start_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = tmp_path / "sleep"
    sleep.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/slept\n')
    sleep.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for _ in range(10):
        assert run("pause", tmp_path / "0").returncode == 0
    assert (tmp_path / "slept").read_text().split() == ["0.5", "1", "2", "4", "8", "8"]


@pytest.mark.parametrize(
    ("result", "status"), [("success", "0"), ("success", "77"), ("exit-code", "78")]
)
def test_end_on_purpose_is_no_reason_to_wait(tmp_path: Path, result: str, status: str) -> None:
    file = tmp_path / "0"
    assert run("pause", file).returncode == 0
    assert (
        run("ended", file, result, {"EXIT_CODE": "exited", "EXIT_STATUS": status}).returncode == 0
    )
    assert counted(file) == "0"


@pytest.mark.parametrize("result", ["oom-kill", "watchdog"])
def test_systemds_reason_for_a_kill_is_reported(tmp_path: Path, result: str) -> None:
    assert run("ended", tmp_path / "0", result).returncode == 0
    assert (tmp_path / "0.env").read_text() == f"ASRD_LAST_EXIT='killed by SIGSEGV ({result})'\n"


@pytest.mark.parametrize("event", ["pause", "ready", "ended"])
def test_unwritable_counter_fails_no_worker(event: str, tmp_path: Path) -> None:
    """A full /run, say; a directory that is missing refuses root, too."""
    done = run(event, tmp_path / "missing" / "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
