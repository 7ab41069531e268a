"""An engine whose every step the test decides, and a worker that runs it."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asrd.engine.interface import OnCheckpoint, OnProgress, OnSegment, Transcription
from asrd.settings import WorkerSettings
from asrd.systemd import Notifier
from asrd.wire.fds import Closing
from asrd.wire.options import Options
from asrd.wire.records import WINDOW_SECONDS, AudioFormat, Checkpoint, Segment
from asrd.wire.turn_word import TurnWord
from asrd.worker.inference import Announce, Inference, Message
from asrd.worker.tasks import Task
from asrd.worker.worker import Worker
from tests.support.raw import PATIENCE, Peer, memfd

# The length of a job of one window; each window before it takes WINDOW_SECONDS more.
AUDIO_SECONDS = 12.5


def length(text: str) -> float:
    """The seconds of a job with this text."""
    return text.count("|") * WINDOW_SECONDS + AUDIO_SECONDS


class FakePrepared(Closing):
    def __init__(self, text: str, resume: Checkpoint | None) -> None:
        self.text = text
        self.first = 0 if resume is None else resume.segments
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """A job's text is what its descriptor holds. Each part between two `|` is a window with one
    segment, and takes one turn.

    `steps` lists what was done: for the job `a|b` these are `prepare a|b`, `run a`, `run b`. A step
    named in `gates` waits until its gate is set; one in `failures` raises.
    """

    model, device, compute_type = "fake", "cpu", "int8"
    languages: tuple[str, ...] = ("en",)
    translate, word_timestamps = False, True
    speech, speakers = True, False
    load_seconds = 0.0
    cpu_threads = 1

    def __init__(self, *gates: str, failures: dict[str, BaseException] | None = None) -> None:
        self.gates = {name: threading.Event() for name in gates}
        self.failures = failures or {}
        self.steps: list[str] = []
        self.prepared: list[FakePrepared] = []
        self.limits: list[float] = []

    def prepare(
        self,
        fd: int,
        audio: AudioFormat,
        options: Options,
        *,
        max_audio_seconds: float,
        on_progress: OnProgress,
        resume: Checkpoint | None = None,
    ) -> FakePrepared:
        text = os.pread(fd, os.fstat(fd).st_size, 0).decode()
        self.limits.append(max_audio_seconds)
        self._do(f"prepare {text}")
        prepared = FakePrepared(text, resume)
        on_progress(prepared.first * WINDOW_SECONDS, length(text))
        self.prepared.append(prepared)
        return prepared

    def run(
        self,
        prepared: FakePrepared,
        on_progress: OnProgress,
        on_segment: OnSegment,
        on_checkpoint: OnCheckpoint,
    ) -> Transcription:
        windows, total = prepared.text.split("|"), length(prepared.text)
        segments: list[Segment] = []
        for index in range(prepared.first, len(windows)):
            start = index * WINDOW_SECONDS
            if segments:
                on_progress(start, total)
                on_checkpoint(Checkpoint(int(100 * start), start, index))
            self._do(f"run {windows[index]}")
            end = min(start + WINDOW_SECONDS, total)
            segments.append(Segment(index + 1, start, end, windows[index], 0.0, 0.0, 0.0, 1.0))
            on_segment(segments[-1])
        on_progress(total, total)
        text = "".join(segment.text for segment in segments)
        return Transcription(text, "en", 1.0, total, tuple(segments))

    def _do(self, step: str) -> None:
        self.steps.append(step)
        if step in self.gates:
            assert self.gates[step].wait(PATIENCE)
        if step in self.failures:
            raise self.failures[step]


class EndableInference(Inference):
    """An Inference whose threads a test can end; in a worker they end with the process."""

    def __init__(self) -> None:
        super().__init__(TurnWord.create())
        self._ending = threading.Event()
        self._started = 0
        self._ended = threading.Semaphore(0)

    def _start_thread(self, work: Callable[[Any], None], on: Any) -> None:
        self._started += 1
        super()._start_thread(work, on)

    def _guard(self, work: Callable[[Any], None], on: Any) -> None:
        super()._guard(work, on)
        kept = self.turns.current
        if kept is not None and kept.thread == threading.get_ident():
            # After a panic or a fatal failure it keeps the turn.
            assert self._ending.wait(PATIENCE)
            self.turns.leave(kept)
        self._ended.release()

    def _post(self, message: Message) -> threading.Event:
        sent = super()._post(message)
        if self._ending.is_set():
            sent.set()
        return sent

    def end(self) -> None:
        """Waits for the jobs, and closes."""
        self._ending.set()
        for _, sent in self._messages:
            sent.set()
        for _ in range(self._started):
            assert self._ended.acquire(timeout=PATIENCE)
        self._wake.close()
        self.turn_word.close()


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
        made = WorkerSettings(**settings)
        self._inference = EndableInference()
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

    def tasks(self) -> list[Task]:
        return list(self.worker._tasks.values())

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


def send_job(front: Peer, text: str = "a", key: int = 1, **fields: Any) -> None:
    data = {"key": key, "job_id": "a", "audio": {"encoding": "file"}, "size": 1, "options": {}}
    with memfd(text.encode()) as fd:
        front.send("job", {**data, **fields}, fds=(fd.fileno(),))
