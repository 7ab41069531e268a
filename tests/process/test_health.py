"""`asrctl health` while something is wrong: what it says, and how soon."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd.exitcodes import Exit
from tests.support.daemons import Daemon, Front
from tests.support.raw import status, wait_for
from tests.support.subprocesses import started

# What `asrctl` itself needs to start, on a busy machine.
_START_SECONDS = 5.0


def health(path: str) -> tuple[int, str]:
    asrctl = started("--socket", path, "health")
    out, err = asrctl.communicate()
    assert err == b""
    return asrctl.returncode, out.decode()


def seen(path: str, state: str, problem: str) -> float:
    """Returns the seconds until the status shows this state and problem."""

    def shown() -> bool:
        found = status(path)
        return found["state"] == state and problem in "; ".join(found["problems"])

    begun = time.monotonic()
    wait_for(problem, shown)
    return time.monotonic() - begun


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_stuck_front_is_unreachable_within_a_second(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front, front.ready():
        assert health(front.socket)[0] == Exit.OK
        with stopped(front.process.pid):
            begun = time.monotonic()
            code, said = health(front.socket)
            took = time.monotonic() - begun
        assert (code, said) == (
            Exit.UNREACHABLE,
            f"unreachable: the daemon at {front.socket} did not answer within 0.5 s\n",
        )
        assert took < 1 + _START_SECONDS


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = "[worker]\ncpu_threads = 1\n"
    # Longer than the test: what shows here is health, not the watchdog's work.
    with Daemon(tmp_path, "--watchdog", "120", config=config) as running:
        running.wait_until_ready()
        yield running


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a job"])
def test_stopped_worker_is_degraded_within_a_second(daemon: Daemon, busy: bool) -> None:
    with daemon.connect() as client:
        if busy:
            client.start_long()
        with stopped(daemon.pid_of()):
            took = seen(daemon.socket, "unavailable", "worker 0 has given no sign of life for 1.")
            assert health(daemon.socket)[0] == 2
        assert took < 1 + _START_SECONDS
        wait_for("health", lambda: daemon.status()["state"] == "ok")


def test_stalled_job_is_degraded_while_its_worker_reports_it(tmp_path: Path) -> None:
    """tests/worker/test_worker.py has the worker's side."""
    with Front(tmp_path, "0") as front, front.ready(alive_seconds=60.0) as worker:
        with front.connect() as client:
            client.ask()
            client.expect("accepted")
            job = worker.start_job()
            worker.send("alive", {"key": job["key"], "stalled_seconds": 130.0})
            seen(
                front.socket,
                "unavailable",
                "worker 0 has a job that has made no progress for 130 s",
            )
            worker.send("alive", {"key": job["key"]})
            wait_for("health", lambda: front.status()["state"] == "ok")
