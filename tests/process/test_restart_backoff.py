"""The script that systemd runs around a worker, by itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "systemd" / "restart-backoff"


def run(
    event: str, file: Path, result: str = "signal", signal: str = "SEGV"
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), event, str(file)],
        env={
            **os.environ,
            "EXIT_CODE": "killed",
            "EXIT_STATUS": signal,
            "SERVICE_RESULT": result,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_restart_delay_grows_until_the_worker_is_ready(tmp_path: Path) -> None:
    file = tmp_path / "0"
    for deaths in ("2", "3"):
        assert run("ended", file).returncode == 0
        assert file.read_text().strip() == deaths
    assert (tmp_path / "0.env").read_text() == "ASRD_LAST_EXIT='killed by SIGSEGV'\n"
    assert run("ready", file).returncode == 0
    assert file.read_text().strip() == "0"


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
    assert run("ended", tmp_path / "0", result, signal).returncode == 0
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
        assert run("ended", tmp_path / "0", "signal", signal).returncode == 0
        assert (tmp_path / "0.env").read_text() == f"ASRD_LAST_EXIT='{expected}'\n"


def test_empty_counter_file_means_no_delay(tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    assert run("ended", tmp_path / "0").returncode == 0
    assert (tmp_path / "0").read_text() == "2\n"


@pytest.mark.parametrize("event", ["ready", "ended"])
def test_unwritable_counter_fails_no_worker(event: str, tmp_path: Path) -> None:
    """A full /run, say; a directory that is missing refuses root, too."""
    done = run(event, tmp_path / "missing" / "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
