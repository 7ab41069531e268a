"""A worker between its front, the service manager and its engine, by real sockets."""

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from asrd.errors import LoadError, Poisoned
from asrd.exitcodes import EXIT_BROKEN, EXIT_CANNOT_LOAD, EXIT_IDLE, EXIT_STOPPED
from asrd.wire.frames import Frame
from asrd.wire.records import SENTENCE_MAX
from asrd.worker.inference import Announce
from tests.support.fake_engine import AUDIO_SECONDS, FakeEngine, FakeWorker, send_job
from tests.support.notifications import notifications
from tests.support.raw import Peer, wait_for

# More than the kernel buffers for a front that does not read.
LONG = "x" * 3_000_000


def next_event(front: Peer) -> Frame | None:
    """The next event besides `loading` and `alive`, None at the end of the connection."""
    while (event := front.receive()) is not None and event.type in ("loading", "alive"):
        pass
    return event


def answer(front: Peer, kind: str) -> dict[str, Any]:
    """The data of the next event, which must be of this kind."""
    event = next_event(front)
    assert event is not None and event.type == kind, event
    return event.data


def test_alive_comes_as_often_as_hello_says(tmp_path: Path) -> None:
    with FakeWorker(tmp_path, FakeEngine()) as worker, worker.connect() as front:
        every = answer(front, "hello")["alive_seconds"]
        assert front.expect("alive") == {"stalled_seconds": 0.0}
        before = time.monotonic()
        assert front.expect("alive") == {"stalled_seconds": 0.0}
        assert time.monotonic() - before > every / 2


def test_alive_reports_a_stalled_job_and_its_length(tmp_path: Path) -> None:
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine, stall_seconds=0.1) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front, key=3)
        report: dict[str, Any] = {"stalled_seconds": 0.0}
        while not report["stalled_seconds"]:
            report = front.expect("alive")
    assert (report["key"], report["audio_seconds"]) == (3, AUDIO_SECONDS)
    assert report["stalled_seconds"] >= 0.1


def test_watchdog_is_not_pinged_while_a_job_stalls(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine, stall_seconds=0.1) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front)
        while not front.expect("alive")["stalled_seconds"]:
            pass
        assert "WATCHDOG=1" in notifications(manager)
        for _ in range(2):
            front.expect("alive")
        assert "WATCHDOG=1" not in notifications(manager)
        engine.gates["run a"].set()
        answer(front, "done")
        wait_for("a ping", lambda: "WATCHDOG=1" in notifications(manager))


def test_status_line_does_not_change_with_each_job(tmp_path: Path, manager: socket.socket) -> None:
    began = time.monotonic()
    with FakeWorker(tmp_path, FakeEngine()) as worker, worker.connect() as front:
        answer(front, "hello")
        for key in range(50):
            send_job(front, key=key)
            answer(front, "done")
        took = time.monotonic() - began
    lines = notifications(manager)
    shown = [line for line in lines if line.startswith("STATUS=") and "fake" in line]
    # Two in a second, and the first.
    assert 1 <= len(shown) <= 2 + 2 * took


def test_stopping_worker_finishes_its_answer(tmp_path: Path) -> None:
    with FakeWorker(tmp_path, FakeEngine()) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front, LONG)
        # The first bytes of the answer are there.
        front.sock.recv(1, socket.MSG_PEEK)
        worker.worker.stop()
        assert worker.join(0.5) is None
        assert answer(front, "done")["text"] == LONG
        assert front.expect("bye") == {"reason": "stopping"}
        assert front.at_end()
        assert worker.join() == EXIT_STOPPED


def test_cancelled_job_that_goes_on_ends_the_worker(tmp_path: Path) -> None:
    """A cancel of another job changes nothing."""
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine, cancel_grace_seconds=0.0) as worker:
        with worker.connect() as front:
            answer(front, "hello")
            send_job(front, key=2)
            for key in (1, 2):
                front.send("cancel", {"key": key})
            assert next_event(front) is None
        assert worker.join() == EXIT_BROKEN


def test_poisoned_worker_ends_after_its_answer(tmp_path: Path) -> None:
    engine = FakeEngine(failures={"run a": Poisoned("CUDA failed")})
    with FakeWorker(tmp_path, engine) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front)
        assert answer(front, "failed")["fatal"]
        assert next_event(front) is None
        assert worker.join() == EXIT_BROKEN


def test_idle_worker_says_goodbye(tmp_path: Path) -> None:
    with FakeWorker(tmp_path, FakeEngine(), idle_exit_seconds=0.1) as worker:
        with worker.connect() as front:
            answer(front, "hello")
            assert answer(front, "bye") == {"reason": "idle"}
            assert next_event(front) is None
        assert worker.join() == EXIT_IDLE


def test_second_job_costs_the_front_its_connection(tmp_path: Path) -> None:
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine) as worker:
        with worker.connect() as front:
            answer(front, "hello")
            send_job(front)
            wait_for("the job", lambda: "run a" in engine.steps)
            send_job(front, "b", key=2)
            assert next_event(front) is None
        with worker.connect() as front:
            # The next front must wait until the job has stopped.
            engine.gates["run a"].set()
            answer(front, "hello")
            send_job(front, "c", key=3)
            assert answer(front, "done")["text"] == "c"
    assert [step for step in engine.steps if "b" in step] == []


@pytest.mark.parametrize("connects", [True, False])
def test_worker_that_cannot_load_gives_the_reason(tmp_path: Path, connects: bool) -> None:
    def load(announce: Announce) -> FakeEngine:
        raise LoadError("\udcff" + "x" * 5000)

    with FakeWorker(tmp_path, FakeEngine(), load) as worker:
        if connects:
            with worker.connect() as front:
                assert answer(front, "cannot-load")["text"] == "\\udcff" + "x" * (SENTENCE_MAX - 6)
        assert worker.join() == EXIT_CANNOT_LOAD


class Panic(BaseException):
    """The exception of a panicking library in Rust (pyo3's PanicException)."""


@pytest.mark.parametrize("step", ["load", "prepare a", "run a"])
def test_panic_of_the_engine_ends_the_worker(tmp_path: Path, step: str) -> None:
    def load(announce: Announce) -> FakeEngine:
        if step == "load":
            raise Panic
        return engine

    engine = FakeEngine(failures={step: Panic()})
    with FakeWorker(tmp_path, engine, load) as worker:
        if step != "load":
            with worker.connect() as front:
                answer(front, "hello")
                send_job(front)
                assert isinstance(worker.join(), Panic)
        assert isinstance(worker.join(), Panic)
