"""The script that systemd runs around a worker, by itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "systemd" / "restart-backoff"
KILLED = {"EXIT_CODE": "killed", "EXIT_STATUS": "SEGV"}


def run(event: str, file: Path, result: str = "signal") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), event, str(file)],
        env={**os.environ, **KILLED, "SERVICE_RESULT": result},
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


@pytest.mark.parametrize("result", ["oom-kill", "watchdog"])
def test_systemds_reason_for_a_kill_is_reported(tmp_path: Path, result: str) -> None:
    assert run("ended", tmp_path / "0", result).returncode == 0
    assert (tmp_path / "0.env").read_text() == f"ASRD_LAST_EXIT='killed by SIGSEGV ({result})'\n"


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
