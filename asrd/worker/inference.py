"""The worker's threads: two that take turns in serving the front and running jobs, one that reads.

Who serves (asrd.worker.worker) and gets a job runs it at once, and lets the other one serve. The
third reads the next job meanwhile (decoding, resampling, features), so that the model need not wait
for it. Whoever is inside a C extension may hang or crash there; the one that serves sees no
progress, and draws its conclusion. Nothing but plain data crosses to it.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from asrd.errors import BadAudio, Code, JobError, LoadError, Poisoned
from asrd.wire.fds import OwnedFd
from asrd.wire.fields import dump
from asrd.wire.records import SENTENCE_MAX, Segment
from asrd.wire.worker_events import Done, Failed, JobProgress, JobSegment, StartJob
from asrd.worker.trimming import Trimmer

log = logging.getLogger(__name__)

# How long a signal may wait to be handled.
_SIGNALS_SECONDS = 0.25


class _Cancelled(Exception):
    """Raised between two segments or windows of a job that nobody wants any more."""


def sentence(problem: object) -> str:
    """As much of it as an event takes, and of characters that JSON has."""
    text = str(problem).encode("utf-8", "backslashreplace").decode()
    return text[:SENTENCE_MAX]


@dataclass(eq=False)
class Task:
    """One job on its way through the engine; owns its descriptor. `moved_at` (monotonic seconds) is
    its last progress; `audio_seconds` the length of its audio, once known; `cancelled_at` is set by
    the thread that serves and obeyed at the next window."""

    job: StartJob
    fd: OwnedFd
    moved_at: float = field(default_factory=time.monotonic)
    cancelled_at: float | None = None
    audio_seconds: float | None = None
    alone: bool = False
    closed: bool = False
    _prepared: Any = None
    _problem: BaseException | None = None
    _claim: threading.Lock = field(default_factory=threading.Lock)
    _is_prepared: threading.Event = field(default_factory=threading.Event)

    def moved(self, done: float = 0.0, total: float | None = None) -> None:
        """In seconds of the audio. Raises _Cancelled if nobody wants it any more."""
        self.moved_at = time.monotonic()
        self.audio_seconds = total or self.audio_seconds
        if self.cancelled_at is not None:
            raise _Cancelled

    def prepare(self, engine: Any) -> None:
        """By the thread that comes first; another one waits here until it is done. What goes wrong
        is told when the job runs."""
        if not self._claim.acquire(blocking=False):
            self._is_prepared.wait()
            return
        try:
            self._prepared = engine.prepare(
                self.fd.fileno(),
                self.job.audio,
                self.job.options,
                max_audio_seconds=self.job.max_audio_seconds,
                on_progress=self.moved,
            )
        except BaseException as error:
            self._problem = error
        self._is_prepared.set()

    def take_prepared(self, engine: Any) -> Any:
        """Raises what `engine.prepare` raised."""
        self.prepare(engine)
        if self._problem is not None:
            raise self._problem
        return self._prepared

    def close(self) -> None:
        """Not while another thread prepares it."""
        if self._prepared is not None:
            self._prepared.close()
        # Minutes of audio; the threads keep their last task until the next one comes.
        self._prepared = self._problem = None
        self.fd.close()
        self.closed = True


@dataclass(frozen=True, slots=True)
class Skills:
    """Abilities of a model, read from its files; all plain data."""

    languages: tuple[str, ...]
    translate: bool
    word_timestamps: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is loaded and warm; all plain data."""

    model: str
    skills: Skills
    device: str
    compute_type: str
    load_seconds: float


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """`permanent`: as configured it can never load; else it is our bug, and worth a restart."""

    reason: str
    permanent: bool


Message = Skills | Loaded | LoadFailed | JobSegment | JobProgress | Done | Failed


class Inference:
    """Loads the engine and runs one task after another; prepares others beside it.

    Two threads are Leader/Followers (Schmidt et al., 2000): a job that had to wait until another
    thread wakes would wait for as long as two processes take to exchange a message.

    `fileno` becomes readable when `messages` has something new.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self.messages: deque[Message] = deque()
        self._load = load
        self._engine: Any = None
        self._trimmer: Trimmer | None = None
        self._turn = threading.Lock()
        # What is to be done, one after another, by the thread that prepares.
        self._beside: queue.Queue[Callable[[], None]] = queue.Queue()
        self._wake = OwnedFd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def fileno(self) -> int:
        return self._wake.fileno()

    def run(self, lead: Callable[[], Task | int]) -> int:
        """Run each task that `lead` returns, until it returns an exit code, which is returned.

        `lead` is called by one thread at a time, also while a task runs; answers come as messages.
        Raises what `lead` raises.
        """
        over: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()

        def take_turns(first: Callable[[], None]) -> None:
            try:
                first()
                over.put(self._take_turns(lead))
            except BaseException as error:
                # A panic of a library in Rust is no Exception; nothing may end one thread alone.
                over.put(error)

        targets: list[Callable[[], None]] = [self._prefetch]
        targets += [partial(take_turns, first) for first in (self._load_engine, _nothing)]
        for target in targets:
            # Daemons: one that hangs in a C extension must not keep the process alive.
            threading.Thread(target=target, daemon=True).start()
        # This thread only waits, for Python handles signals in no other. It must wake now and then:
        # a signal that the kernel gives to another thread does not wake it.
        end: int | BaseException | None = None
        while end is None:
            with contextlib.suppress(queue.Empty):
                end = over.get(timeout=_SIGNALS_SECONDS)
        if isinstance(end, BaseException):
            raise end
        return end

    def announce(self, skills: Skills) -> None:
        """Tell what the model can do, before it is loaded."""
        self._post(skills)

    def prepare(self, task: Task) -> None:
        """Prepare it beside the one that runs. It must be run later, or discarded."""
        self._beside.put(lambda: task.prepare(self._engine))

    def discard(self, task: Task) -> None:
        """Close a cancelled task that was to be prepared, once the thread is done with it."""
        self._beside.put(task.close)

    def take_messages(self) -> list[Message]:
        try:
            os.eventfd_read(self._wake.fileno())
        except BlockingIOError:
            return []
        found = []
        while self.messages:
            found.append(self.messages.popleft())
        return found

    def _post(self, message: Message) -> None:
        self.messages.append(message)
        os.eventfd_write(self._wake.fileno(), 1)

    def _take_turns(self, lead: Callable[[], Task | int]) -> int:
        while True:
            with self._turn:
                task = lead()
            if isinstance(task, int):
                return task
            if task.alone:
                # What is read beside it may crash the process, and this is its last attempt.
                self._beside.join()
            answer = self._run(self._engine, task)
            task.close()
            self._post(answer)
            if self._trimmer is not None:
                self._trimmer.after_job()

    def _prefetch(self) -> None:
        while True:
            work = self._beside.get()
            work()
            self._beside.task_done()

    def _load_engine(self) -> None:
        try:
            self._engine = self._load()
            self._trimmer = Trimmer()
        except LoadError as error:
            self._post(LoadFailed(sentence(error), permanent=True))
        except ImportError as error:
            reason = f"{error}: `pip install 'asrd[worker]'` brings what a worker needs"
            self._post(LoadFailed(sentence(reason), permanent=True))
        except Exception as error:
            log.exception("loading the model failed")
            reason = f"{type(error).__name__}: {error}"
            self._post(LoadFailed(sentence(reason), permanent=False))
        else:
            # Not before: a job may come at once, and what is read ahead needs the engine, too.
            self._post(_loaded(self._engine))

    def _run(self, engine: Any, task: Task) -> Done | Failed:
        """Every way in which a job can end inside the process, as its one answer."""
        key = task.job.key
        started = time.monotonic()
        try:
            result = self._transcribe(engine, task)
        except _Cancelled:
            return Failed(key, Code.CANCELLED, "it was cancelled")
        except JobError as error:
            return Failed(key, error.code, sentence(error.text))
        except MemoryError:
            return Failed(key, Code.OUT_OF_MEMORY, "the worker ran out of memory for this job")
        except Poisoned as error:
            log.error("job %s poisoned the engine: %s", task.job.job_id, error)
            return Failed(key, Code.INTERNAL, sentence(error), fatal=True)
        except Exception as error:
            log.exception("job %s failed in the engine", task.job.job_id)
            return Failed(key, Code.INTERNAL, sentence(f"{type(error).__name__}: {error}"))
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

    def _transcribe(self, engine: Any, task: Task) -> Any:
        job, index = task.job, 0

        def on_segment(segment: Segment) -> None:
            nonlocal index
            task.moved()
            if job.stream:
                self._post(JobSegment(job.key, index, dump(segment)))
            index += 1

        def on_progress(done: float, total: float | None) -> None:
            task.moved(done, total)
            if job.stream:
                self._post(JobProgress(job.key, done, total))

        result = engine.run(task.take_prepared(engine), on_progress, on_segment)
        # Looked at last: a client may cut its file short at any time, and what was left of it
        # would pass for the whole.
        if os.fstat(task.fd.fileno()).st_size < job.size:
            raise BadAudio("audio: was truncated after it was sent")
        return result


def _nothing() -> None:
    pass


def _loaded(engine: Any) -> Loaded:
    return Loaded(
        engine.model,
        Skills(tuple(engine.languages), engine.translate, engine.word_timestamps),
        engine.device,
        engine.compute_type,
        engine.load_seconds,
    )
