"""The ends of workers' processes, counted by cause, and the jobs that they give back."""

from pathlib import Path
from typing import Any

from tests.support.daemons import Front
from tests.support.raw import HELLO, Peer, done, wait_for, window


def failures(front: Front) -> dict[str, int]:
    found: dict[str, int] = front.worker("0")["failures"]
    return found


def next_process(front: Front, **last: Any) -> Peer:
    """A worker that reports how the one before it ended, once the front has counted that."""
    before = sum(failures(front).values())
    worker = front.accept()
    worker.send("hello", {**HELLO, **({"last": last} if last else {})})
    wait_for("the count", lambda: sum(failures(front).values()) > before)
    front.wait_for_state("ready", "busy")
    return worker


def test_each_end_of_a_process_is_counted_once_by_its_cause(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front, front.connect() as client:
        worker = front.ready()
        for text in (
            "killed by SIGSEGV",
            "killed by SIGABRT (watchdog)",
            "out of memory (killed by SIGKILL)",
            "exited with 1",
            "a surprise",
        ):
            worker.close()
            worker = next_process(front, exit=text)
        expected = {"signal": 1, "no-progress": 1, "out-of-memory": 1, "exit": 1, "unknown": 1}
        assert failures(front) == expected
        # Memory that ran out also stops the progress.
        worker.send("alive", {"stalled_seconds": 9.0})
        wait_for("the stall", lambda: front.status()["problems"])
        worker.close()
        worker = next_process(front, exit="killed by SIGKILL, perhaps out of memory")
        # The next process cannot report: nothing is known of an end without a service manager.
        worker.close()
        worker = next_process(front)
        expected |= {"out-of-memory": 2, "unknown": 2}
        assert failures(front) == expected
        for self_test, cause in ((False, "poisoned"), (True, "self-test")):
            client.ask(cause)
            failed = {"key": worker.start_job()["key"], "code": "internal", "text": "it ends"}
            worker.send("failed", {**failed, "fatal": True, "self_test": self_test})
            worker.close()
            worker = next_process(front, exit="exited with 70")
            worker.send("done", done(worker.start_job()["key"]))
            assert client.answer(cause).type == "transcript"
        worker.send("hello", HELLO)
        worker.close()
        worker = next_process(front, exit="exited with 1")
        assert failures(front) == expected | {"poisoned": 1, "self-test": 1, "protocol": 1}
        worker.close()


def test_process_that_dies_before_it_can_report_is_counted(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front:
        front.ready().close()
        front.accept().close()
        next_process(front, exit="killed by SIGSEGV").close()
        wait_for("both", lambda: failures(front) == {"unknown": 1, "signal": 1})
        assert front.worker("0")["restarts"] >= 2


def test_failed_loads_are_counted(tmp_path: Path) -> None:
    with Front(tmp_path, "0") as front:
        front.ready().close()
        for self_test in (False, True):
            with front.accept() as worker:
                worker.send("cannot-load", {"text": "no such model", "self_test": self_test})
                front.wait_for_state("failed")
                worker.sock.shutdown(2)
        wait_for(
            "the counts",
            lambda: failures(front) == {"unknown": 1, "cannot-load": 1, "self-test": 1},
        )
        assert front.worker("0")["restarts"] == 1


def test_client_and_row_name_the_cause_but_nothing_of_a_process_that_is_gone(
    tmp_path: Path,
) -> None:
    oom = "out of memory (killed by SIGKILL)"
    with Front(tmp_path, "0") as front, front.connect() as client:
        worker = front.ready(load_seconds=2.5)
        client.ask("a")
        worker.start_job()
        worker.close()
        worker = next_process(front, exit=oom)
        worker.start_job()
        assert front.worker("0")["device"] == "cpu"
        worker.close()
        answer = client.answer("a")
        assert answer.data["code"] == "worker-crashed"
        assert answer.data["text"].endswith(f"ended without notice; the time before: {oom}")
        with front.accept() as worker:
            worker.send("loading", {"pid": 4711, "model": "another"})
            worker.send("cannot-load", {"text": "no such model"})
            front.wait_for_state("failed")
            row = front.worker("0")
            gone = ("pid", "device", "compute_type", "load_seconds")
            assert [row[key] for key in gone] == [None, None, None, 0.0]
            assert (row["model"], row["reason"]) == ("another", "no such model")


def test_jobs_given_back_and_resumed_are_counted(tmp_path: Path) -> None:
    """Also a worker that ended itself because a cancelled job did not stop."""
    with Front(tmp_path, "0") as front, front.connect() as client:
        with front.ready() as worker:
            client.ask("a")
            worker.send("window", window(worker.start_job()["key"], "one"))
            worker.send("bye", {"reason": "cancelled"})
        with front.ready() as worker:
            worker.send("done", done(worker.start_job()["key"], " two"))
            assert client.answer("a").data["text"] == "one two"
        assert failures(front)["ignored-cancel"] == 1
        jobs = front.status()["jobs"]
        assert (jobs["suspended"], jobs["resumed"], jobs["retried"]) == (1, 1, 0)
