"""The worker: one model, one connection from the front at a time, one job at a time.

`Worker` serves the front and the service manager in the main thread; the engine has a thread of its
own (asrd.worker.inference), so a hang in the engine never stops this one.
"""

import contextlib
import logging
import os
import select
import socket
import time
from dataclasses import replace

from asrd import systemd
from asrd.errors import FieldError, ProtocolError
from asrd.exitcodes import EXIT_BROKEN, EXIT_CANNOT_LOAD, EXIT_IDLE, EXIT_STOPPED
from asrd.settings import WorkerSettings
from asrd.wire import worker_events
from asrd.wire.fds import OwnedFd
from asrd.wire.records import LastProcess
from asrd.worker.front_connection import FrontConnection, FrontGone
from asrd.worker.inference import Inference, LoadFailed, Message, Panic, Task
from asrd.worker.stderr_capture import CapturedStderr

log = logging.getLogger(__name__)

# How long a worker that can't load waits for the front to connect and receive the reason.
_REFUSAL_SECONDS = 2.0
# How long the last answer may take to send. A front that needs longer hangs.
_FAREWELL_SECONDS = 5.0
# The longest wait between two looks at the clock: for stalls, cancels, idleness and stops.
_TICK_SECONDS = 0.25
# The time between two `alive` events.
_ALIVE_SECONDS = 0.5
# The shortest time between two STATUS lines.
_STATUS_SECONDS = 0.5


class Worker:
    """Serves until there is a reason to exit. Owns the listener."""

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
        pid, words = (None, None) if stderr is None else (stderr.last_pid, stderr.last_words)
        self._last_process = LastProcess(systemd.last_exit(), pid, words)
        self._model = settings.model or "demo"
        # The state of the model, which each front gets first.
        self._introduction: worker_events.WorkerEvent = worker_events.Loading(
            os.getpid(), self._model, self._last_process
        )
        # If the model can't be loaded: the exit code, and the time when that became known.
        self._refusal: tuple[int, float] | None = None
        # The job that runs.
        self._task: Task | None = None
        self._jobs_done = 0
        self._idle_since = time.monotonic()
        self._stopping = False
        self._poisoned = False
        self._ping_every = systemd.watchdog_seconds()
        self._pinged_at = self._alive_at = self._status_at = 0.0

    def run(self) -> int:
        """Serves until there is a reason to exit; returns the exit code.

        Raises what ended the engine's thread.
        """
        self._notifier.status(f"loading {self._model}")
        while (code := self._exit_code(time.monotonic())) is None:
            self._wait()
            self._report(time.monotonic())
        self._say_farewell()
        return code

    @property
    def _loaded(self) -> bool:
        return isinstance(self._introduction, worker_events.Hello)

    def stop(self) -> None:
        """Finishes the job that runs, then exits. Safe to call from a signal handler."""
        self._stopping = True

    def _exit_code(self, now: float) -> int | None:
        """Returns the code to exit with, once goodbye is said; None while there is no reason to."""
        if self._poisoned:
            return EXIT_BROKEN
        if self._refusal is not None:
            code, since = self._refusal
            return None if self._front is None and now - since <= _REFUSAL_SECONDS else code
        if self._task is not None:
            return EXIT_BROKEN if self._ignores_cancel(self._task, now) else None
        if self._stopping:
            return self._leave("stopping", EXIT_STOPPED)
        if self._loaded and 0 < self.settings.idle_exit_seconds < now - self._idle_since:
            return self._leave("idle", EXIT_IDLE)
        return None

    def _ignores_cancel(self, task: Task, now: float) -> bool:
        grace = self.settings.cancel_grace_seconds
        if task.cancelled_at is None or now - task.cancelled_at <= grace:
            return False
        log.error("job %s did not stop within %g s", task.job.job_id, grace)
        return True

    def _leave(self, reason: str, code: int) -> int:
        self._notifier.status(reason)
        self._send(worker_events.Bye(reason))
        return code

    def _say_farewell(self) -> None:
        if self._front is not None:
            # A long transcript may be half written.
            with contextlib.suppress(FrontGone):
                self._front.finish(_FAREWELL_SECONDS)
        self._drop_front()
        self._listener.close()
        if self._stderr is not None:
            self._stderr.pass_on()

    def _wait(self) -> None:
        """Handles the next events, if any come before it is time to look at the clock."""
        poll = select.poll()
        poll.register(self._inference, select.POLLIN)
        if self._front is not None:
            write = select.POLLOUT if self._front.wants_write else 0
            poll.register(self._front, select.POLLIN | write)
        elif self._task is None:
            # A new front must wait until the last one's job has stopped.
            poll.register(self._listener, select.POLLIN)
        ready = dict(poll.poll(1000 * min(_TICK_SECONDS, self._ping_every or _TICK_SECONDS)))
        if self._inference.fileno() in ready:
            for message in self._inference.take_messages():
                self._handle_message(message)
        if self._front is not None and self._front.fileno() in ready:
            self._read(self._front)
        elif self._listener.fileno() in ready:
            self._accept()

    # --- reports --------------------------------------------------------------------------------

    def _report(self, now: float) -> None:
        self._ping(now)
        if self._stderr is not None:
            self._stderr.pass_on()
        self._send_alive(now)
        self._update_status(now)

    def _ping(self, now: float) -> None:
        """Pings the watchdog, unless the job has made no progress for too long."""
        if self._ping_every is None or now - self._pinged_at < self._ping_every:
            return
        if not self._stalled(now):
            self._pinged_at = now
            self._notifier.watchdog()

    def _stalled(self, now: float) -> float:
        """Returns the seconds since the job's last progress; 0 below `stall_seconds`."""
        still = 0.0 if self._task is None else now - self._task.progress_at
        return still if still >= self.settings.stall_seconds else 0.0

    def _send_alive(self, now: float) -> None:
        if not self._loaded or self._front is None or self._front.wants_write:
            # A front that does not read needs no more of them.
            return
        if now - self._alive_at >= _ALIVE_SECONDS:
            self._alive_at = now
            task = self._task
            key, seconds = (None, None) if task is None else (task.job.key, task.audio_seconds)
            self._send(worker_events.Alive(key, seconds, round(self._stalled(now), 3)))

    def _update_status(self, now: float) -> None:
        # Not for each job: the manager would wake up when the job needs the processor.
        if not self._loaded or now - self._status_at < _STATUS_SECONDS:
            return
        self._status_at = now
        # Every user may read this line, so it names no job and no client.
        state = "ready" if self._task is None else "busy"
        self._notifier.status(f"{state} · {self._model} · {self._jobs_done} done")

    # --- the front ------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self._front, self._alive_at = FrontConnection(sock), time.monotonic()
        self._send(self._introduction)

    def _send(self, event: worker_events.WorkerEvent) -> None:
        """Sends an event, if there is a front."""
        if self._front is not None:
            try:
                self._front.send(event)
            except FrontGone as reason:
                self._lose_front(reason)

    def _read(self, front: FrontConnection) -> None:
        try:
            front.flush()
            while (received := front.receive()) is not None:
                self._handle(*received)
        except (FrontGone, ProtocolError, FieldError) as reason:
            self._lose_front(reason)

    def _handle(self, event: worker_events.FrontEvent | None, fd: OwnedFd | None) -> None:
        if isinstance(event, worker_events.StartJob) and fd is not None:
            self._start(event, fd)
        elif isinstance(event, worker_events.CancelJob):
            self._cancel(event.key)

    def _start(self, job: worker_events.StartJob, fd: OwnedFd) -> None:
        if not self._loaded or self._task is not None:
            fd.close()
            raise ProtocolError("a job arrived while the worker was not ready for one")
        self._task = Task(job, fd)
        self._inference.submit(self._task)

    def _cancel(self, key: int) -> None:
        if self._task is not None and self._task.job.key == key:
            self._task.cancel()

    def _lose_front(self, reason: Exception) -> None:
        log.info("lost the front: %s", reason)
        self._drop_front()
        if self._task is not None:
            self._task.cancel()

    def _drop_front(self) -> None:
        if self._front is not None:
            self._front.close()
            self._front = None

    # --- the engine -----------------------------------------------------------------------------

    def _handle_message(self, message: Message) -> None:
        match message:
            case Panic():
                raise message.error
            case worker_events.Loading():
                self._introduce(replace(message, last=self._last_process))
            case worker_events.Hello():
                self._on_loaded(message)
            case LoadFailed():
                self._on_load_failed(message)
            case worker_events.Done() | worker_events.Failed():
                self._on_answer(message)
            case _:
                self._send(message)

    def _introduce(
        self, event: worker_events.Loading | worker_events.Hello | worker_events.CannotLoad
    ) -> None:
        self._introduction = event
        self._send(event)

    def _on_loaded(self, hello: worker_events.Hello) -> None:
        where = f"{hello.device} ({hello.compute_type})"
        log.info("%s loaded on %s in %.2f s", hello.model, where, hello.load_seconds)
        self._model = f"{hello.model} on {where}"
        self._idle_since = time.monotonic()
        self._notifier.ready()
        spare, last = self.settings.spare, self._last_process
        self._introduce(replace(hello, spare=spare, last=last, alive_seconds=_ALIVE_SECONDS))

    def _on_load_failed(self, failure: LoadFailed) -> None:
        log.error("cannot load: %s", failure.reason)
        self._notifier.status(f"cannot load: {failure.reason}")
        code = EXIT_CANNOT_LOAD if failure.permanent else EXIT_BROKEN
        self._refusal = code, time.monotonic()
        self._introduce(worker_events.CannotLoad(failure.reason))

    def _on_answer(self, answer: worker_events.Done | worker_events.Failed) -> None:
        self._send(answer)
        self._task = None
        self._jobs_done += 1
        self._idle_since = time.monotonic()
        self._poisoned = isinstance(answer, worker_events.Failed) and answer.fatal
