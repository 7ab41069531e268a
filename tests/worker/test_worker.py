"""A worker between its front, the service manager and its engine, by real sockets."""

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asrd.errors import Code, LoadError, Poisoned
from asrd.exitcodes import EXIT_BROKEN, EXIT_CANNOT_LOAD, EXIT_IDLE, EXIT_STOPPED
from asrd.wire.frames import Frame
from asrd.wire.records import SENTENCE_MAX
from asrd.wire.turn_word import TurnWord
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
    event.close()
    return event.data


def wait_for_step(engine: FakeEngine, step: str) -> None:
    wait_for(step, lambda: step in engine.steps)


def reports(front: Peer, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first `alive` that meets a condition."""
    while not condition(report := front.expect("alive")):
        pass
    return report


def test_alive_comes_as_often_as_hello_says(tmp_path: Path) -> None:
    with FakeWorker(tmp_path, FakeEngine()) as worker, worker.connect() as front:
        every = answer(front, "hello")["alive_seconds"]
        assert front.expect("alive") == {"jobs": [], "stalled_seconds": 0.0}
        before = time.monotonic()
        assert front.expect("alive") == {"jobs": [], "stalled_seconds": 0.0}
        assert time.monotonic() - before > every / 2


def test_hello_has_the_places_and_the_turn_word(tmp_path: Path) -> None:
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine, slots=3, max_audio_seconds=60.0) as worker:
        for _ in range(2):
            # Each front gets it.
            with worker.connect() as front:
                hello = next_event(front)
                assert hello is not None and hello.type == "hello"
                assert (hello.data["slots"], hello.data["max_audio_seconds"]) == (3, 60.0)
                with closing(TurnWord.received(hello.fds.pop())) as word:
                    assert word.read() == 0
                    engine.gates["run a"].clear()
                    send_job(front, key=5)
                    wait_for("the turn", lambda word=word: word.read() == 5)
                    engine.gates["run a"].set()
                    answer(front, "done")
                    wait_for("the end", lambda word=word: word.read() == 0)


def test_alive_lists_all_jobs_but_only_the_turn_counts(tmp_path: Path) -> None:
    engine = FakeEngine("run a")
    resume = {"frame": 3000, "seconds": 30.0, "segments": 1}
    with FakeWorker(tmp_path, engine, stall_seconds=0.1) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front, key=3)
        wait_for_step(engine, "run a")
        send_job(front, "x|y", key=4, resume=resume)
        report = reports(front, lambda report: len(report["jobs"]) == 2)
    one, two = report["jobs"]
    assert (one["key"], one["audio_seconds"]) == (3, AUDIO_SECONDS) and one["work_seconds"] > 0
    # Nothing is known of its length.
    assert two == {"key": 4, "work_seconds": 0.0, "audio_seconds_done": 30.0}
    assert report["stalled_seconds"] >= 0.1


def test_watchdog_is_not_pinged_while_a_turn_stalls(
    tmp_path: Path,
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine, stall_seconds=0.1) as worker, worker.connect() as front:
        answer(front, "hello")
        for stalls in (1, 2):
            engine.gates["run a"].clear()
            send_job(front)
            reports(front, lambda report: report["stalled_seconds"] > 0)
            notifications(manager)
            for _ in range(2):
                front.expect("alive")
            assert "WATCHDOG=1" not in notifications(manager)
            lines = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
            assert len(lines) == stalls
            assert "job a made no progress for 0 s" in lines[-1] and "fake_engine.py" in lines[-1]
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


def test_stopping_worker_hands_long_jobs_back(tmp_path: Path) -> None:
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front, "a|b|c", key=1)
        wait_for_step(engine, "run a")
        send_job(front, "x", key=2)
        reports(front, lambda report: len(report["jobs"]) == 2)
        worker.worker.stop()
        # One that comes now is not begun, and need not wait for the others.
        send_job(front, "y", key=3)
        assert answer(front, "failed")["key"] == 3
        wait_for("the suspension", lambda: all(t.suspended_at for t in worker.tasks()))
        engine.gates["run a"].set()
        assert answer(front, "done")["key"] == 2
        assert answer(front, "window")["checkpoint"]["segments"] == 1
        handed_back = answer(front, "failed")
        assert (handed_back["key"], handed_back["code"]) == (1, Code.SHUTTING_DOWN)
        assert answer(front, "bye") == {"reason": "stopping"}
        assert front.at_end()
        assert worker.join() == EXIT_STOPPED
    assert engine.steps == ["prepare a|b|c", "run a", "prepare x", "run x"]


def test_stopping_worker_leaves_a_search_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrd.worker.tasks._LONG_PATIENCE", 0.1)
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front, "a|b|c", options={"task": "speakers"})
        wait_for_step(engine, "run a")
        worker.worker.stop()
        # Without an answer: the front gives the job to another worker.
        assert answer(front, "bye") == {"reason": "stopping"}
        assert front.at_end()
        assert worker.join() == EXIT_STOPPED


def test_cancelled_job_that_goes_on_ends_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancel of another job changes nothing, nor does one of a job that waits for its turn."""
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine, cancel_grace_seconds=0.0) as worker:
        with worker.connect() as front:
            answer(front, "hello")
            send_job(front, key=2)
            wait_for_step(engine, "run a")
            send_job(front, "x", key=3)
            for key in (1, 3):
                front.send("cancel", {"key": key})
            wait_for("the cancel", lambda: any(t.cancelled_at for t in worker.tasks()))
            for _ in range(2):
                front.expect("alive")
            front.send("cancel", {"key": 2})
            # The front takes the other job back.
            assert answer(front, "bye") == {"reason": "cancelled"}
            assert front.at_end()
        assert worker.join() == EXIT_STOPPED
    assert "job a was cancelled, and goes on after 0.0 s" in caplog.text


def test_cancelled_job_has_the_time_that_a_new_load_would_take(tmp_path: Path) -> None:
    engine = FakeEngine("run a")
    engine.load_seconds = 1000.0
    with FakeWorker(tmp_path, engine, cancel_grace_seconds=0.0) as worker:
        with worker.connect() as front:
            answer(front, "hello")
            send_job(front)
            wait_for_step(engine, "run a")
            front.send("cancel", {"key": 1})
            wait_for("the cancel", lambda: any(t.cancelled_at for t in worker.tasks()))
            for _ in range(2):
                front.expect("alive")
            engine.gates["run a"].set()
            assert answer(front, "failed")["code"] == "cancelled"


def test_front_that_leaves_cancels_its_jobs(tmp_path: Path) -> None:
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine) as worker:
        with worker.connect() as front:
            answer(front, "hello")
            send_job(front, "a|b|c", key=1)
            wait_for_step(engine, "run a")
            send_job(front, "x", key=2)
            send_job(front, "y|z", key=3)
            reports(front, lambda report: len(report["jobs"]) == 3)
        wait_for("the end", lambda: all(t.cancelled_at for t in worker.tasks()))
        with worker.connect() as front:
            # The next front must wait until the jobs have stopped.
            engine.gates["run a"].set()
            answer(front, "hello")
            send_job(front, "c", key=3)
            assert answer(front, "done")["text"] == "c"
    assert engine.steps == ["prepare a|b|c", "run a", "prepare c", "run c"]


@pytest.mark.parametrize(("own", "sent", "limit"), [(60.0, 90.0, 60.0), (0.0, 90.0, 90.0)])
def test_worker_for_commands_takes_no_longer_recordings(
    tmp_path: Path, own: float, sent: float, limit: float
) -> None:
    engine = FakeEngine()
    with FakeWorker(tmp_path, engine, max_audio_seconds=own) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front, max_audio_seconds=sent)
        answer(front, "done")
    assert engine.limits == [limit]


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


@pytest.mark.parametrize("fault", ["full", "key", "size"])
def test_job_that_cannot_be_costs_the_front_its_connection(tmp_path: Path, fault: str) -> None:
    engine = FakeEngine("run a")
    with FakeWorker(tmp_path, engine, slots=1) as worker, worker.connect() as front:
        answer(front, "hello")
        send_job(front)
        wait_for_step(engine, "run a")
        if fault == "full":
            send_job(front, "b", key=2)
        if fault == "size":
            send_job(front, "b", key=3, audio={"encoding": "pcm_s16le"})
        else:
            send_job(front, "b", key=3 if fault == "full" else 1)
        assert next_event(front) is None
        engine.gates["run a"].set()
    assert not [step for step in engine.steps if "b" in step]


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
