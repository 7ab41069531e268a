"""The engine's thread: it loads the model, then runs one job after another.

It may hang or crash in a C extension at any moment. The main thread (asrd.worker.worker) goes on
serving the front, sees that the job makes no progress, and no longer pings the watchdog. Tasks
go to this thread, and plain data comes back.
"""

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from asrd.engine.interface import Engine, Prepared, Transcription
from asrd.errors import BadAudio, Code, JobError, LoadError, Poisoned
from asrd.safe_text import one_line
from asrd.wire import worker_events
from asrd.wire.fds import OwnedFd
from asrd.wire.fields import dump
from asrd.wire.records import SENTENCE_MAX, Segment
from asrd.wire.worker_events import Done, Failed, StartJob
from asrd.worker.trimming import Trimmer

log = logging.getLogger(__name__)


class _Cancelled(Exception):
    """Raised between two segments or windows of a job that the front cancelled."""


def _sentence(problem: object) -> str:
    """Returns a problem as text that fits an event."""
    return one_line(str(problem))[:SENTENCE_MAX]


@dataclass(eq=False)
class Task:
    """A job on its way through the engine; owns the descriptor of its audio.

    `progress_at` is the time of its last progress in monotonic seconds, `audio_seconds` the length
    of its audio once that is known. The main thread sets `cancelled_at`.
    """

    job: StartJob
    fd: OwnedFd
    progress_at: float = field(default_factory=time.monotonic)
    cancelled_at: float | None = None
    audio_seconds: float | None = None

    def cancel(self) -> None:
        """Stops the job at its next progress."""
        if self.cancelled_at is None:
            self.cancelled_at = time.monotonic()

    def note_progress(self, done: float = 0.0, total: float | None = None) -> None:
        """Takes positions in seconds of audio. Raises _Cancelled if the job was cancelled."""
        self.progress_at = time.monotonic()
        self.audio_seconds = total or self.audio_seconds
        if self.cancelled_at is not None:
            raise _Cancelled


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Message: the model can't be loaded. `permanent`: nor after a restart with these settings."""

    reason: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class Panic:
    """Message: the engine's thread has ended; the process must end too."""

    error: BaseException


# Gets `loading` with what the model's files say, before the engine is imported.
Announce = Callable[[worker_events.Loading], None]
Message = worker_events.WorkerEvent | LoadFailed | Panic


class Inference:
    """Owns the engine's thread. `fileno` is readable while `take_messages` has something new."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._messages: deque[Message] = deque()
        self._wake = OwnedFd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def fileno(self) -> int:
        return self._wake.fileno()

    def start(self, load: Callable[[Announce], Engine[Prepared]]) -> None:
        """Loads the engine, then runs the submitted tasks."""
        # A daemon: a hang in a C extension must not keep the process alive.
        threading.Thread(target=self._work, args=(load,), daemon=True).start()

    def submit(self, task: Task) -> None:
        """Runs a task, once the model is loaded. Its answer, Done or Failed, comes as a message."""
        self._tasks.put(task)

    def take_messages(self) -> list[Message]:
        """Returns the new messages. Call it when `fileno` is readable."""
        os.eventfd_read(self._wake.fileno())
        return [self._messages.popleft() for _ in range(len(self._messages))]

    def _post(self, message: Message) -> None:
        self._messages.append(message)
        os.eventfd_write(self._wake.fileno(), 1)

    def _work(self, load: Callable[[Announce], Engine[Prepared]]) -> None:
        try:
            engine = self._load_engine(load)
            if engine is None:
                return
            trimmer = Trimmer()
            self._post(_hello(engine))
            while True:
                # No variable keeps the task while the thread waits for the next one.
                self._post(self._run(engine, self._tasks.get()))
                trimmer.after_job()
        except BaseException as error:
            # A panic in a Rust library is no Exception. It must not end this thread alone.
            self._post(Panic(error))

    def _load_engine(self, load: Callable[[Announce], Engine[Prepared]]) -> Engine[Prepared] | None:
        try:
            return load(self._post)
        except LoadError as error:
            failure = LoadFailed(_sentence(error), permanent=True)
        except ImportError as error:
            reason = f"{error}: `pip install 'asrd[worker]'` brings what a worker needs"
            failure = LoadFailed(_sentence(reason), permanent=True)
        except Exception as error:
            log.exception("loading the model failed")
            failure = LoadFailed(_sentence(f"{type(error).__name__}: {error}"), permanent=False)
        self._post(failure)
        return None

    def _run(self, engine: Engine[Prepared], task: Task) -> Done | Failed:
        """Returns the job's one answer, and closes its descriptor.

        The front may send the next job as soon as it has the answer; the worker holds nothing of
        this one by then.
        """
        key = task.job.key
        started = time.monotonic()
        try:
            with task.fd:
                result = self._transcribe(engine, task)
        except _Cancelled:
            return Failed(key, Code.CANCELLED, "the job was cancelled")
        except JobError as error:
            return Failed(key, error.code, _sentence(error.text))
        except MemoryError:
            return Failed(key, Code.OUT_OF_MEMORY, "the worker ran out of memory for this job")
        except Poisoned as error:
            log.error("the engine can't be used any more, in job %s: %s", task.job.job_id, error)
            return Failed(key, Code.INTERNAL, _sentence(error), fatal=True)
        except Exception as error:
            log.exception("job %s failed in the engine", task.job.job_id)
            return Failed(key, Code.INTERNAL, _sentence(f"{type(error).__name__}: {error}"))
        return Done(
            key=key,
            text=result.text,
            language=result.language,
            language_probability=result.language_probability,
            audio_seconds=result.audio_seconds,
            run_seconds=time.monotonic() - started,
            segments=tuple(dump(segment) for segment in result.segments),
            warnings=result.warnings,
        )

    def _transcribe(self, engine: Engine[Prepared], task: Task) -> Transcription:
        job, index = task.job, 0

        def on_segment(segment: Segment) -> None:
            nonlocal index
            task.note_progress()
            if job.stream:
                self._post(worker_events.JobSegment(job.key, index, dump(segment)))
            index += 1

        def on_progress(done: float, total: float | None) -> None:
            task.note_progress(done, total)
            if job.stream:
                self._post(worker_events.JobProgress(job.key, done, total))

        with engine.prepare(
            task.fd.fileno(),
            job.audio,
            job.options,
            max_audio_seconds=job.max_audio_seconds,
            on_progress=task.note_progress,
        ) as prepared:
            result = engine.run(prepared, on_progress, on_segment)
        # Checked last: a client may shorten its file at any time, and the transcript of what is
        # left would pass for the whole.
        if os.fstat(task.fd.fileno()).st_size < job.size:
            raise BadAudio("audio: was truncated after it was sent")
        return result


def _hello(engine: Engine[Prepared]) -> worker_events.Hello:
    return worker_events.Hello(
        version=worker_events.PROTOCOL_VERSION,
        pid=os.getpid(),
        model=engine.model,
        languages=engine.languages,
        translate=engine.translate,
        word_timestamps=engine.word_timestamps,
        device=engine.device,
        compute_type=engine.compute_type,
        load_seconds=round(engine.load_seconds, 3),
    )
