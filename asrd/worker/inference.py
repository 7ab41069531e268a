"""The engine's threads: one loads the model, and each job has one, in turns (asrd.worker.turns).

They may hang or crash in a C extension at any moment. The main thread (asrd.worker.worker) goes on
serving the front, sees that a job makes no progress, and no longer pings the watchdog. Plain data
comes back from them.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asrd import cores
from asrd.engine.interface import Engine, Transcription
from asrd.errors import BadAudio, Code, JobError, LoadError, Poisoned
from asrd.safe_text import one_line
from asrd.wire import worker_events
from asrd.wire.fds import OwnedFd
from asrd.wire.fields import dump
from asrd.wire.records import SENTENCE_MAX, Checkpoint, Segment
from asrd.wire.turn_word import TurnWord
from asrd.wire.worker_events import Done, Failed, JobProgress, JobWindow
from asrd.worker.tasks import Cancelled, Suspended, Task
from asrd.worker.trimming import Trimmer
from asrd.worker.turns import Turns

log = logging.getLogger(__name__)


def _sentence(problem: object) -> str:
    """Returns a problem as text that fits an event."""
    return one_line(str(problem))[:SENTENCE_MAX]


def _named(error: Exception) -> str:
    return _sentence(f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """Message: the model can't be loaded. `permanent`: nor after a restart with these settings.
    `self_test`: it gives wrong text."""

    reason: str
    permanent: bool
    self_test: bool = False


@dataclass(frozen=True, slots=True)
class Panic:
    """Message: a thread of the engine has ended; the process must end too."""

    error: BaseException


# Gets `loading` with what the model's files say, before the engine is imported.
Announce = Callable[[worker_events.Loading], object]
Message = worker_events.WorkerEvent | LoadFailed | Panic


class Inference:
    """Owns the engine's threads and the turn word. `fileno` is readable while `take_messages` has
    something new.

    A thread goes on only when its window or its answer has been taken and sent: the next call of
    the engine may end the process, and what is done must not end with it.
    """

    _engine: Engine[Any]
    _trimmer: Trimmer

    def __init__(self, turn_word: TurnWord) -> None:
        self.turn_word = turn_word
        self.turns = Turns(turn_word.write)
        self._messages: deque[tuple[Message, threading.Event]] = deque()
        self._wake = OwnedFd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def fileno(self) -> int:
        return self._wake.fileno()

    def start(self, load: Callable[[Announce], Engine[Any]]) -> None:
        """Loads the engine."""
        self._start_thread(self._load, load)

    def submit(self, task: Task) -> None:
        """Runs a task; the model must be loaded. Its answer (Done or Failed) comes as a message."""
        self._start_thread(self._run_in_turns, task)

    def take_messages(self) -> Iterator[Message]:
        """Yields the new messages; each counts as sent when the next one is asked for. Call it when
        `fileno` is readable."""
        os.eventfd_read(self._wake.fileno())
        for _ in range(len(self._messages)):
            message, sent = self._messages.popleft()
            yield message
            sent.set()

    def _post(self, message: Message) -> threading.Event:
        """Returns what is set when the message has been sent."""
        sent = threading.Event()
        self._messages.append((message, sent))
        os.eventfd_write(self._wake.fileno(), 1)
        return sent

    def _start_thread(self, work: Callable[[Any], None], on: Any) -> None:
        # A daemon: a hang in a C extension must not keep the process alive.
        threading.Thread(target=self._guard, args=(work, on), daemon=True).start()

    def _guard(self, work: Callable[[Any], None], on: Any) -> None:
        try:
            work(on)
        except BaseException as error:
            # A panic in a Rust library is no Exception. It must not end this thread alone.
            self._post(Panic(error))

    def _load(self, load: Callable[[Announce], Engine[Any]]) -> None:
        try:
            self._engine = load(self._post)
        except LoadError as error:
            self._post(LoadFailed(_sentence(error), True, error.self_test))
        except ImportError as error:
            extra = "speakers" if error.name == "sherpa_onnx" else "worker"
            reason = f"{error}: `pip install 'asrd[{extra}]'` brings what a worker needs"
            self._post(LoadFailed(_sentence(reason), permanent=True))
        except Exception as error:
            log.exception("loading the model failed")
            self._post(LoadFailed(_named(error), permanent=False))
        else:
            self._trimmer = Trimmer()
            self._post(_hello(self._engine))

    def _run_in_turns(self, task: Task) -> None:
        task.thread = threading.get_ident()
        self.turns.join(task)
        self._post(answer := self._run(task)).wait()
        self._trimmer.after_job()
        # After a panic or a fatal failure it keeps the turn: no other job may meet a broken engine,
        # or be blamed for it, before the process ends.
        if not (isinstance(answer, Failed) and answer.fatal):
            self.turns.leave(task)

    def _run(self, task: Task) -> Done | Failed:
        """Returns the job's one answer, and closes its descriptor.

        The front may send the next job as soon as it has the answer; the worker holds nothing of
        this one by then.
        """
        key = task.job.key
        try:
            with task.fd:
                result = self._transcribe(task)
        except Cancelled:
            return Failed(key, Code.CANCELLED, "the job was cancelled")
        except Suspended:
            return handed_back(key)
        except JobError as error:
            return Failed(key, error.code, _sentence(error.text))
        except MemoryError:
            return Failed(key, Code.OUT_OF_MEMORY, "the worker ran out of memory for this job")
        except Poisoned as error:
            log.error("the engine can't be used any more, in job %s: %s", task.job.job_id, error)
            return Failed(key, Code.INTERNAL, _sentence(error), True, error.self_test)
        except Exception as error:
            log.exception("job %s failed in the engine", task.job.job_id)
            return Failed(key, Code.INTERNAL, _named(error))
        return Done(
            key=key,
            text=_text(task.segments),
            language=result.language,
            language_probability=result.language_probability,
            audio_seconds=result.audio_seconds,
            run_seconds=task.state(time.monotonic()).work_seconds,
            segments=tuple(dump(segment) for segment in task.segments),
            warnings=result.warnings,
        )

    def _transcribe(self, task: Task) -> Transcription:
        job = task.job
        reported = None

        def end_turn(done: float, total: float | None) -> None:
            task.done, task.total = done, total or task.total
            self.turns.next(task)
            # The front may have cancelled it meanwhile.
            task.check()

        def on_progress(done: float, total: float | None) -> None:
            nonlocal reported
            # A window takes several turns.
            if job.stream and reported != (done, total):
                reported = done, total
                self._post(JobProgress(job.key, done, total))
            end_turn(done, total)

        def on_checkpoint(checkpoint: Checkpoint) -> None:
            segments = tuple(dump(segment) for segment in task.segments)
            self._post(JobWindow(job.key, checkpoint, _text(task.segments), segments)).wait()
            task.pass_checkpoint()

        # It may have been cancelled or suspended before its first turn.
        task.check(at_checkpoint=True)
        with self._engine.prepare(
            task.fd.fileno(),
            job.audio,
            job.options,
            max_audio_seconds=job.max_audio_seconds,
            on_progress=end_turn,
            resume=job.resume,
        ) as prepared:
            result = self._engine.run(prepared, on_progress, task.segments.append, on_checkpoint)
        # Checked last: a client may shorten its file at any time, and the transcript of what is
        # left would pass for the whole.
        if os.fstat(task.fd.fileno()).st_size < job.size:
            raise BadAudio("audio: was truncated after it was sent")
        return result


def handed_back(key: int) -> Failed:
    """Returns the answer to a job that another worker is to go on with."""
    return Failed(key, Code.SHUTTING_DOWN, "the worker stops")


def _text(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def _hello(engine: Engine[Any]) -> worker_events.Hello:
    return worker_events.Hello(
        version=worker_events.PROTOCOL_VERSION,
        pid=os.getpid(),
        model=engine.model,
        languages=engine.languages,
        translate=engine.translate,
        word_timestamps=engine.word_timestamps,
        speech=engine.speech,
        speakers=engine.speakers,
        device=engine.device,
        compute_type=engine.compute_type,
        cpu_threads=engine.cpu_threads,
        cores=cores.usable(),
        load_seconds=round(engine.load_seconds, 3),
    )
