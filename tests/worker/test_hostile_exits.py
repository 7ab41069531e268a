"""What a worker still owes the front when it ends, or can't say in one event."""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from asrd.errors import Code, LoadError
from asrd.settings import WorkerSettings
from asrd.systemd import Notifier
from asrd.wire.records import SENTENCE_MAX
from asrd.wire.worker_events import Done, Failed
from asrd.worker.front_connection import FrontConnection
from asrd.worker.inference import Inference, Loaded, LoadFailed, Message, Skills, Task
from asrd.worker.worker import Worker
from tests.support.raw import Peer, memfd

# More than the kernel keeps for a front that does not read.
LONG = "x" * 3_000_000


class AtOnce:
    """An inference that has loaded, and answers each job at once."""

    def __init__(self) -> None:
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._messages: list[Message] = []
        self._post(Loaded("fake", Skills(("en",), False, True), "cpu", "int8", 0.0))

    def fileno(self) -> int:
        return self._wake

    def _post(self, message: Message) -> None:
        self._messages.append(message)
        os.eventfd_write(self._wake, 1)

    def run(self, lead: Callable[[], Task | int]) -> int:
        while isinstance(task := lead(), Task):
            task.fd.close()
            self._post(Done(task.job.key, LONG, "en", 1.0, 1.0, 1.0))
        return task

    def take_messages(self) -> list[Message]:
        os.eventfd_read(self._wake)
        taken, self._messages = self._messages, []
        return taken

    def close(self) -> None:
        os.close(self._wake)


def test_an_answer_half_written_is_finished_before_the_worker_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "worker.sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.closing(AtOnce()) as inference:
        listener.bind(path)
        listener.listen()
        worker = Worker(WorkerSettings(), listener, Notifier(), cast(Inference, inference))
        with Peer.connect(path) as front, memfd(b"audio") as fd:
            job = {"key": 1, "job_id": "a", "audio": {"encoding": "file"}, "size": 5, "options": {}}
            thread = threading.Thread(target=worker.run)
            thread.start()
            while (event := front.receive()) is not None and event.type != "hello":
                pass
            front.send("job", job, fds=(fd.fileno(),))
            # The first bytes of the answer are there.
            front.sock.recv(1, socket.MSG_PEEK)
            worker.stop()
            # It is ending, and only the front's reading lets it.
            thread.join(0.5)
            assert front.expect("done")["text"] == LONG
            assert front.expect("bye") == {"reason": "stopping"}
            assert front.at_end()
        thread.join()


def test_a_reason_fits_its_event() -> None:
    def load() -> Any:
        raise LoadError("\udcff" + "x" * 5000)

    inference = Inference(load)
    over = threading.Event()
    serving = threading.Thread(target=inference.run, args=(lambda: over.wait() and 0,))
    serving.start()
    select.select([inference], [], [])
    (failed,) = inference.take_messages()
    over.set()
    serving.join()
    inference._wake.close()
    assert isinstance(failed, LoadFailed)
    assert failed.reason == "\\udcff" + "x" * (SENTENCE_MAX - 6)


def test_a_transcript_that_no_client_takes_is_too_large() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        link = FrontConnection(ours)
        link.send(Done(7, "x" * (64 << 20), "en", 1.0, 1.0, 1.0))
        failed = Peer(theirs).expect(Failed.TYPE)
        link.close()
    assert (failed["key"], failed["code"]) == (7, Code.TOO_LARGE)
    assert "over the limit" in failed["text"]


@pytest.mark.parametrize("reads", [True, False])
def test_a_front_that_does_not_read_is_not_waited_for_for_ever(reads: bool) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        link = FrontConnection(ours)
        link.send(Done(7, LONG, "en", 1.0, 1.0, 1.0))
        reader = threading.Thread(target=Peer(theirs).expect, args=("done",))
        if reads:
            reader.start()
        link.finish(30 if reads else 0.01)
        assert link.wants_write is not reads
        if reads:
            reader.join()
        link.close()
