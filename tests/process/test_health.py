"""`asrctl health` while something is wrong: what it says, and how soon."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asrd.exitcodes import Exit
from tests.support.daemons import Daemon, Front
from tests.support.raw import Peer, done, wait_for

# What `asrctl` itself needs to start, on a busy machine.
_START_SECONDS = 5.0


def health(path: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "asrd.asrctl.cli", "--socket", path, "health"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def seen(path: str, state: str, problem: str) -> float:
    """Seconds until the status shows this state and problem."""
    begun = time.monotonic()
    with Peer.connect(path) as client:

        def shown() -> bool:
            client.send("status")
            status = client.expect("status")
            return status["state"] == state and problem in "; ".join(status["problems"])

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


def test_full_backlog_is_unreachable_within_a_second(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        begun = time.monotonic()
        code, said = health(path)
    assert code == Exit.UNREACHABLE
    assert "did not answer within 0.5 s" in said
    assert time.monotonic() - begun < 1 + _START_SECONDS


def test_full_queue_is_degraded_at_once(tmp_path: Path) -> None:
    with Front(tmp_path, "0", config="queue_max = 1") as front, front.ready() as worker:
        with front.connect() as client:
            for name in ("runs", "waits"):
                client.ask(name)
                client.expect("accepted")
            seen(front.socket, "degraded", "the queue is full (1 of 1)")
            assert health(front.socket)[0] == 1
            worker.start_job()


def nothing_listens(front: Front) -> None:
    front.listeners.pop("0").close()


def cannot_load(front: Front) -> None:
    with front.accept() as worker:
        worker.send("cannot-load", {"text": "no such model"})


def ends_at_once(front: Front) -> None:
    for _ in range(3):
        with front.accept() as worker:
            worker.send("loading", {"pid": 7, "model": "tiny"})


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (nothing_listens, "worker 0 is down: nothing listens at "),
        (cannot_load, "worker 0 is failed: no such model"),
        (ends_at_once, "worker 0 died 3 times within the last minute"),
    ],
)
def test_failed_worker_is_degraded(
    tmp_path: Path, end: Callable[[Front], None], problem: str
) -> None:
    with Front(tmp_path, "0") as front:
        end(front)
        seen(front.socket, "unavailable", problem)
        code, said = health(front.socket)
        assert code == 2
        assert problem in said


def test_asleep_worker_that_never_loaded_is_degraded(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front:
        with front.accept() as worker:
            worker.send("bye", {"reason": "idle"})
        seen(front.socket, "unavailable", "has not been seen to load its model")


def test_asleep_worker_that_had_loaded_is_ok(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front:
        with front.ready() as worker:
            worker.send("bye", {"reason": "idle"})
        front.wait_for_state("asleep")
        assert health(front.socket)[0] == Exit.OK


def test_silent_worker_is_degraded_until_it_reports_again(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front, front.ready(alive_seconds=0.5) as worker:
        seen(front.socket, "unavailable", "worker 0 has given no sign of life for ")
        worker.send("alive", {})
        wait_for("health", lambda: front.status()["state"] == "ok")


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
    """tests/worker/test_signs_of_life.py has the worker's side."""
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


def test_failing_jobs_are_degraded_until_one_succeeds(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front, front.ready() as worker, front.connect() as client:
        for number in range(4):
            client.ask(str(number))
            job = worker.start_job()
            if number == 3:
                assert front.status()["problems"] == ["no job has succeeded yet, 3 failed"]
                assert front.status()["state"] == "degraded"
                worker.send("done", done(job["key"]))
            else:
                worker.send("failed", {"key": job["key"], "code": "internal", "text": "a bug"})
            client.answer(str(number))
        assert front.status()["state"] == "ok"
