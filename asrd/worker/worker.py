"""The worker: one model, one connection from the front at a time, and the courage to die.

`Worker` speaks with the front and the service manager and never touches the engine; the threads are
those of `asrd.worker.inference`. Exit codes: 0 stopped, 77 idle for long enough, 78 can't
load as it is configured (EX_CONFIG, sysexits.h), 70 a job could not be stopped or the process is
poisoned (EX_SOFTWARE).
"""

import contextlib
import logging
import os
import select
import socket
import time
from dataclasses import asdict
from typing import Any

from asrd import systemd
from asrd.errors import FieldError, ProtocolError
from asrd.settings import WorkerSettings
from asrd.wire.fds import OwnedFd
from asrd.wire.records import LastProcess
from asrd.wire.worker_events import (
    PROTOCOL_VERSION,
    Alive,
    Bye,
    CancelJob,
    CannotLoad,
    Done,
    Failed,
    Hello,
    Loading,
    StartJob,
)
from asrd.worker.front_connection import FrontConnection, FrontGone
from asrd.worker.inference import Inference, Loaded, LoadFailed, Message, Skills, Task
from asrd.worker.stderr_capture import CapturedStderr
from asrd.worker.tasks import Tasks

log = logging.getLogger(__name__)

EXIT_STOPPED = 0
EXIT_BROKEN = 70
EXIT_IDLE = 77
EXIT_CANNOT_LOAD = 78

# A worker that can't load waits so long for the front to come and hear why.
_LAST_WORDS_SECONDS = 2.0
# The front reads at once, or it hangs.
_FAREWELL_SECONDS = 5.0
# How often the clock is looked at for stalls, cancels and idleness, in seconds.
_TICK_SECONDS = 0.25
# How often the front hears that this thread lives.
_ALIVE_SECONDS = 0.5
# How old the STATUS line may be.
_SHOW_SECONDS = 0.5


class Worker:
    """Owns the listener."""

    def __init__(
        self,
        settings: WorkerSettings,
        listener: socket.socket,
        notifier: systemd.Notifier,
        inference: Inference,
        stderr: CapturedStderr | None = None,
    ) -> None:
        listener.setblocking(False)
        self.settings = settings
        self._listener = listener
        self._notifier = notifier
        self._inference = inference
        self._stderr = stderr
        self._front: FrontConnection | None = None
        # What the model's files say, and what was loaded of them.
        self._skills: Skills | None = None
        self._loaded: Loaded | None = None
        self._cannot_load: tuple[LoadFailed, float] | None = None
        self._tasks = Tasks(inference)
        self._jobs_done = 0
        self._idle_since = time.monotonic()
        self._stopping = False
        self._exit: int | None = None
        self._ping_every = systemd.watchdog_seconds()
        self._pinged_at = self._alive_at = self._shown_at = 0.0

    @property
    def model(self) -> str:
        return self.settings.model or "demo"

    def run(self) -> int:
        """Serve until there is a reason to exit; returns the exit code."""
        self._notifier.status(f"loading {self.model}")
        return self._inference.run(self._lead)

    def stop(self) -> None:
        """Finish the job that runs, then leave."""
        self._stopping = True

    def _lead(self) -> Task | int:
        """Serve until a job is to be run, or there is a reason to exit."""
        if self._front is not None:
            # What came right behind the last job.
            self._hear_front(self._front)
        while self._exit is None:
            if (task := self._tasks.take_due()) is not None:
                return task
            self._wait()
            if self._tasks.due is None:
                self._tick()
        self._say_farewell()
        return self._exit

    def _say_farewell(self) -> None:
        if self._front is not None:
            # A long transcript may be half written, and it is the answer.
            with contextlib.suppress(FrontGone):
                self._front.finish(_FAREWELL_SECONDS)
        self._drop_front()
        self._listener.close()
        if self._stderr is not None:
            self._stderr.pass_on()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._inference, select.POLLIN)
        if self._front is not None:
            write = select.POLLOUT if self._front.wants_write else 0
            poll.register(self._front, select.POLLIN | write)
        elif self._tasks.running is None:
            # One front at a time, and no new one before the old one's job has stopped.
            poll.register(self._listener, select.POLLIN)
        ready = dict(poll.poll(1000 * min(_TICK_SECONDS, self._ping_every or _TICK_SECONDS)))
        if self._inference.fileno() in ready:
            for message in self._inference.take_messages():
                self._hear_engine(message)
        if self._front is not None and self._front.fileno() in ready:
            self._hear_front(self._front)
        elif self._listener.fileno() in ready:
            self._accept()

    # --- the clock ------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = time.monotonic()
        self._ping(now)
        self._show_life(now)
        self._show(now)
        grace = self.settings.cancel_grace_seconds
        if self._cannot_load is not None:
            failure, since = self._cannot_load
            if self._front is not None or now - since > _LAST_WORDS_SECONDS:
                self._exit = EXIT_CANNOT_LOAD if failure.permanent else EXIT_BROKEN
        elif (stuck := self._tasks.stuck(grace, now)) is not None:
            log.error("job %s did not stop within %g s", stuck.job.job_id, grace)
            if stuck is not self._tasks.running:
                # It was only read: no job of which the front waits to hear has begun.
                self._tell(Bye("stopping"))
            self._exit = EXIT_BROKEN
        elif self._tasks.running is not None:
            return
        elif self._stopping:
            self._leave("stopping", EXIT_STOPPED)
        elif self._loaded and 0 < self.settings.idle_exit_seconds < now - self._idle_since:
            self._leave("idle", EXIT_IDLE)

    def _ping(self, now: float) -> None:
        """A ping means progress: none while the current job has not moved for too long."""
        if self._ping_every is None or now - self._pinged_at < self._ping_every:
            return
        if not self._stalled(now):
            self._pinged_at = now
            self._notifier.watchdog()

    def _stalled(self, now: float) -> float:
        """For how many seconds the current job has not moved, if that is too long; else 0."""
        still = 0.0 if self._tasks.running is None else now - self._tasks.running.moved_at
        return still if still >= self.settings.stall_seconds else 0.0

    def _show_life(self, now: float) -> None:
        if self._stderr is not None:
            self._stderr.pass_on()
        if self._loaded is None or self._front is None or self._front.wants_write:
            # A front that does not read would only find more of them.
            return
        if now - self._alive_at >= _ALIVE_SECONDS:
            self._alive_at = now
            task = self._tasks.running
            key, seconds = (None, None) if task is None else (task.job.key, task.audio_seconds)
            self._tell(Alive(key, seconds, round(self._stalled(now), 3)))

    def _leave(self, reason: str, code: int) -> None:
        self._notifier.status(reason)
        self._tell(Bye(reason))
        self._exit = code

    def _show(self, now: float) -> None:
        # Not for each job: the manager would wake for it while the job wants the processor.
        if self._loaded is None or now - self._shown_at < _SHOW_SECONDS:
            return
        self._shown_at = now
        # Everybody may read this line: whose job it is, and which, is in the log.
        doing = "ready" if self._tasks.running is None else "busy"
        what = f"{self._loaded.model} on {self._loaded.device} ({self._loaded.compute_type})"
        self._notifier.status(f"{doing} · {what} · {self._jobs_done} done")

    # --- the front ------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self._front, self._alive_at = FrontConnection(sock), time.monotonic()
        if self._cannot_load is not None:
            self._tell(CannotLoad(self._cannot_load[0].reason))
        elif self._loaded is None:
            self._tell(self._loading())
        else:
            self._tell(self._hello(self._loaded))

    def _last_process(self) -> LastProcess:
        if self._stderr is None:
            return LastProcess(systemd.last_exit())
        return LastProcess(systemd.last_exit(), self._stderr.last_pid, self._stderr.last_words)

    def _loading(self) -> Loading:
        pid, last = os.getpid(), self._last_process()
        if self._skills is None:
            return Loading(pid, self.model, last)
        return Loading(pid, self.model, last, **asdict(self._skills))

    def _hello(self, loaded: Loaded) -> Hello:
        return Hello(
            version=PROTOCOL_VERSION,
            pid=os.getpid(),
            model=loaded.model,
            **asdict(loaded.skills),
            device=loaded.device,
            compute_type=loaded.compute_type,
            spare=self.settings.spare,
            load_seconds=round(loaded.load_seconds, 3),
            last=self._last_process(),
            alive_seconds=_ALIVE_SECONDS,
        )

    def _tell(self, event: Any) -> None:
        """Whatever the front can't be told any more, it learns from the end of the connection."""
        if self._front is not None:
            try:
                self._front.send(event)
            except FrontGone as reason:
                self._lose_front(reason)

    def _hear_front(self, front: FrontConnection) -> None:
        try:
            front.flush()
            # A job that is due is run first; what came behind it hears who leads then.
            while self._tasks.due is None and (received := front.receive()) is not None:
                self._obey(*received)
        except (FrontGone, ProtocolError, FieldError) as reason:
            self._lose_front(reason)

    def _obey(self, event: Any, fd: OwnedFd | None) -> None:
        if isinstance(event, StartJob) and fd is not None:
            self._take(event, fd)
        elif isinstance(event, CancelJob):
            self._tasks.cancel(event.key)

    def _take(self, job: StartJob, fd: OwnedFd) -> None:
        if self._loaded is None:
            fd.close()
            raise ProtocolError("a job came before the model was loaded")
        self._tasks.take(Task(job, fd))

    def _lose_front(self, reason: Exception) -> None:
        log.info("the front is gone: %s", reason)
        self._drop_front()
        self._tasks.cancel_all()

    def _drop_front(self) -> None:
        if self._front is not None:
            self._front.close()
            self._front = None

    # --- the engine -----------------------------------------------------------------------------

    def _hear_engine(self, message: Message) -> None:
        if isinstance(message, Skills):
            self._skills = message
            self._tell(self._loading())
        elif isinstance(message, Loaded):
            self._on_loaded(message)
        elif isinstance(message, LoadFailed):
            self._on_load_failed(message)
        else:
            self._tell(message)
            if isinstance(message, (Done, Failed)):
                self._on_answer(message)

    def _on_loaded(self, loaded: Loaded) -> None:
        log.info(
            "%s loaded on %s (%s) in %.2f s",
            loaded.model,
            loaded.device,
            loaded.compute_type,
            loaded.load_seconds,
        )
        self._loaded = loaded
        self._idle_since = time.monotonic()
        self._notifier.ready()
        self._tell(self._hello(loaded))

    def _on_load_failed(self, failure: LoadFailed) -> None:
        log.error("cannot load: %s", failure.reason)
        self._notifier.status(f"cannot load: {failure.reason}")
        self._cannot_load = failure, time.monotonic()
        self._tell(CannotLoad(failure.reason))

    def _on_answer(self, answer: Done | Failed) -> None:
        self._tasks.answered()
        self._jobs_done += 1
        self._idle_since = time.monotonic()
        if isinstance(answer, Failed) and answer.fatal:
            self._exit = EXIT_BROKEN
