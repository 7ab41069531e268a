"""An engine whose every step the test decides, and a worker that runs it."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asrd.engine.interface import Engine, OnProgress, OnSegment, Transcription
from asrd.settings import WorkerSettings
from asrd.systemd import Notifier
from asrd.wire.fds import Closing
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Segment
from asrd.worker.inference import Announce, Inference
from asrd.worker.worker import Worker
from tests.support.raw import PATIENCE, Peer, memfd

AUDIO_SECONDS = 12.5


class FakePrepared(Closing):
    def __init__(self, text: str) -> None:
        self.text = text
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """A job's text, and its one segment, is what its descriptor holds.

    `steps` lists what was done, as `prepare a` and `run a`. A step named in `gates` waits until its
    gate is set; one in `failures` raises.
    """

    model, device, compute_type = "fake", "cpu", "int8"
    languages: tuple[str, ...] = ("en",)
    translate, word_timestamps = False, True
    load_seconds = 0.0

    def __init__(self, *gates: str, failures: dict[str, BaseException] | None = None) -> None:
        self.gates = {name: threading.Event() for name in gates}
        self.failures = failures or {}
        self.steps: list[str] = []
        self.prepared: list[FakePrepared] = []

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: OnProgress,
    ) -> FakePrepared:
        text = os.pread(fd, os.fstat(fd).st_size, 0).decode()
        self._do(f"prepare {text}")
        on_progress(0.0, AUDIO_SECONDS)
        self.prepared.append(FakePrepared(text))
        return self.prepared[-1]

    def run(
        self, prepared: FakePrepared, on_progress: OnProgress, on_segment: OnSegment
    ) -> Transcription:
        self._do(f"run {prepared.text}")
        on_progress(AUDIO_SECONDS, AUDIO_SECONDS)
        segment = Segment(1, 0.0, AUDIO_SECONDS, prepared.text, 0.0, 0.0, 0.0, 1.0)
        on_segment(segment)
        return Transcription(prepared.text, "en", 1.0, AUDIO_SECONDS, (segment,))

    def _do(self, step: str) -> None:
        self.steps.append(step)
        if step in self.gates:
            assert self.gates[step].wait(PATIENCE)
        if step in self.failures:
            raise self.failures[step]


class EndableInference(Inference):
    """An Inference whose thread a test can end; in a worker it ends with the process."""

    def start(self, load: Callable[[Announce], Engine[Any]]) -> None:
        self._others = set(threading.enumerate())
        super().start(load)

    def end(self) -> None:
        """Waits for the job that runs, ends the thread, and closes."""
        no_task: Any = None
        self._tasks.put(no_task)
        for thread in set(threading.enumerate()) - self._others:
            thread.join(PATIENCE)
        self._wake.close()


class FakeWorker:
    """A worker with such an engine, in a thread of the test.

    `result` is what its `run` returned or raised, once it has ended.
    """

    def __init__(
        self,
        directory: Path,
        engine: FakeEngine,
        load: Callable[[Announce], FakeEngine] | None = None,
        **settings: Any,
    ) -> None:
        self.engine = engine
        self.notifier = Notifier()
        self.result: int | BaseException | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "worker.sock"))
        self._listener.listen()
        self._load = load or (lambda announce: engine)
        self._inference = EndableInference()
        made = WorkerSettings(**settings)
        self.worker = Worker(made, self._listener, self.notifier, self._inference)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._inference.start(self._load)
            self.result = self.worker.run()
        except BaseException as error:
            self.result = error

    def connect(self) -> Peer:
        return Peer.connect(self._listener.getsockname())

    def join(self, seconds: float = PATIENCE) -> int | BaseException | None:
        self._thread.join(seconds)
        return self.result

    def __enter__(self) -> "FakeWorker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        for gate in self.engine.gates.values():
            gate.set()
        self._thread.join()
        self._inference.end()
        self.worker._drop_front()
        self.notifier.close()
        self._listener.close()


def send_job(front: Peer, text: str = "a", key: int = 1) -> None:
    data = {"key": key, "job_id": "a", "audio": {"encoding": "file"}, "size": 1, "options": {}}
    with memfd(text.encode()) as fd:
        front.send("job", data, fds=(fd.fileno(),))
