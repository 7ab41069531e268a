"""What a worker says of itself, and hears, while its engine works."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from asrd.settings import WorkerSettings
from asrd.systemd import Notifier
from asrd.wire.worker_events import Alive, Done, Hello
from asrd.worker.inference import Inference, Loaded, Message, Skills, Task
from asrd.worker.worker import Worker
from tests.support.raw import Peer, memfd

JOB = {"key": 3, "job_id": "a", "audio": {"encoding": "file"}, "size": 5, "options": {}}


class Hangs:
    """An inference that has loaded, and never answers a job: its engine hangs."""

    def __init__(self) -> None:
        self._wake = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.messages: list[Message] = [
            Loaded("fake", Skills(("en",), False, True), "cpu", "int8", 0.0)
        ]
        self.task: Task | None = None

    def fileno(self) -> int:
        return self._wake

    def run(self, lead: Callable[[], Task | int]) -> int:
        while isinstance(task := lead(), Task):
            task.fd.close()
            task.audio_seconds = 12.5
            self.task = task
        return task

    def prepare(self, task: Task) -> None:
        task.fd.close()

    def discard(self, task: Task) -> None:
        pass

    def take_messages(self) -> list[Message]:
        os.eventfd_read(self._wake)
        taken, self.messages = self.messages, []
        return taken


class Answers(Hangs):
    """One that answers each job at once."""

    def run(self, lead: Callable[[], Task | int]) -> int:
        while isinstance(task := lead(), Task):
            task.fd.close()
            self.messages.append(Done(task.job.key, "", "en", 1.0, 1.0, 1.0))
            os.eventfd_write(self._wake, 1)
        return task


def test_the_manager_is_not_woken_for_each_job(tmp_path: Path, manager: socket.socket) -> None:
    inference, began = Answers(), time.monotonic()
    with contextlib.closing(Notifier()) as notifier, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "worker.sock"))
        listener.listen()
        worker = Worker(WorkerSettings(), listener, notifier, cast(Inference, inference))
        thread = threading.Thread(target=worker.run)
        thread.start()
        with Peer.connect(listener.getsockname()) as front:
            for key in range(50):
                send_job(front, {**JOB, "key": key})
                while (said := front.receive()) is not None and said.type != Done.TYPE:
                    pass
            took = time.monotonic() - began
            worker.stop()
            thread.join()
    os.close(inference.fileno())
    manager.setblocking(False)
    lines = []
    with contextlib.suppress(BlockingIOError):
        while True:
            lines.append(manager.recv(4096).decode())
    shown = [line for line in lines if line.startswith("STATUS=") and "fake" in line]
    # Twice a second, and the one that began.
    assert 1 <= len(shown) <= 2 + 2 * took


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Peer]:
    """The front's end of a worker whose engine hangs."""
    inference = Hangs()
    settings = WorkerSettings(stall_seconds=0.1, cancel_grace_seconds=0.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "worker.sock"))
        listener.listen()
        worker = Worker(settings, listener, Notifier(), cast(Inference, inference))
        with Peer.connect(listener.getsockname()) as peer:
            thread = threading.Thread(target=worker.run)
            thread.start()
            yield peer
            worker.stop()
            if inference.task is not None:
                inference.task.cancelled_at = time.monotonic()
        thread.join()
    os.close(inference.fileno())


def test_an_idle_worker_says_that_it_lives_as_often_as_it_promised(front: Peer) -> None:
    promised = front.expect(Hello.TYPE)["alive_seconds"]
    assert front.expect(Alive.TYPE) == {"stalled_seconds": 0.0}
    before = time.monotonic()
    assert front.expect(Alive.TYPE) == {"stalled_seconds": 0.0}
    assert time.monotonic() - before > promised / 2


def send_job(front: Peer, job: dict[str, Any]) -> None:
    with memfd(b"audio") as fd:
        front.send("job", job, fds=(fd.fileno(),))


def test_a_job_that_does_not_move_is_told_with_its_length(front: Peer) -> None:
    front.expect(Hello.TYPE)
    send_job(front, JOB)
    told = front.expect(Alive.TYPE)
    while not told["stalled_seconds"]:
        told = front.expect(Alive.TYPE)
    assert (told["key"], told["audio_seconds"]) == (3, 12.5)
    assert told["stalled_seconds"] >= 0.1
