"""The script that systemd runs around a worker, by itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "systemd" / "restart-backoff"


def killed(signal: str) -> dict[str, str]:
    return {"EXIT_CODE": "killed", "EXIT_STATUS": signal}


def run(
    event: str, file: Path, result: str = "signal", end: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), event, str(file)],
        env={**os.environ, **(end or killed("SEGV")), "SERVICE_RESULT": result},
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


@pytest.mark.parametrize(
    ("result", "signal", "words"),
    [
        ("oom-kill", "KILL", "out of memory (killed by SIGKILL)"),
        ("watchdog", "ABRT", "killed by SIGABRT (watchdog)"),
        ("signal", "KILL", "killed by SIGKILL"),
    ],
)
def test_systemds_reason_for_a_kill_is_reported(
    tmp_path: Path, result: str, signal: str, words: str
) -> None:
    assert run("ended", tmp_path / "0", result, killed(signal)).returncode == 0
    assert (tmp_path / "0.env").read_text() == f"ASRD_LAST_EXIT='{words}'\n"


@pytest.mark.parametrize(
    ("signal", "words"),
    [("KILL", "killed by SIGKILL, perhaps out of memory"), ("SEGV", "killed by SIGSEGV")],
)
def test_kernels_count_of_kills_is_a_hint(tmp_path: Path, signal: str, words: str) -> None:
    assert run("ready", tmp_path / "0").returncode == 0
    # The count when the worker was ready; it only grows.
    (tmp_path / "0.oom").write_text("fewer\n")
    for expected in (words, f"killed by SIG{signal}"):
        assert run("ended", tmp_path / "0", "signal", killed(signal)).returncode == 0
        assert (tmp_path / "0.env").read_text() == f"ASRD_LAST_EXIT='{expected}'\n"


@pytest.mark.parametrize("event", ["pause", "ready", "ended"])
def test_unwritable_counter_fails_no_worker(event: str, tmp_path: Path) -> None:
    """A full /run, say; a directory that is missing refuses root, too."""
    done = run(event, tmp_path / "missing" / "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
