"""The worker: one model, one connection from the front at a time, and jobs that take turns.

`Worker` serves the front and the service manager in the main thread; the engine has threads of its
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
from asrd.worker.inference import Inference, LoadFailed, Message, Panic, handed_back
from asrd.worker.stderr_capture import CapturedStderr
from asrd.worker.tasks import Task
from asrd.worker.turns import innermost_calls

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
        # The jobs without an answer, by key.
        self._tasks: dict[int, Task] = {}
        self._grace = settings.cancel_grace_seconds
        self._jobs_done = 0
        self._idle_since = time.monotonic()
        self._stopping = False
        self._poisoned = False
        self._stalling = False
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
        """Finishes short jobs, hands the others back, and exits. Safe to call from a signal
        handler."""
        self._stopping = True

    def _exit_code(self, now: float) -> int | None:
        """Returns the code to exit with, once goodbye is said; None while there is no reason to."""
        if self._poisoned:
            return EXIT_BROKEN
        if self._refusal is not None:
            code, since = self._refusal
            return None if self._front is None and now - since <= _REFUSAL_SECONDS else code
        if self._ignores_cancel(now):
            return self._leave("cancelled", EXIT_STOPPED)
        if self._stopping:
            for task in self._tasks.values():
                task.suspend()
            if any(task.ignores_suspension(now) for task in self._tasks.values()):
                return self._leave("stopping", EXIT_STOPPED)
        if self._tasks:
            return None
        if self._stopping:
            return self._leave("stopping", EXIT_STOPPED)
        if self._loaded and 0 < self.settings.idle_exit_seconds < now - self._idle_since:
            return self._leave("idle", EXIT_IDLE)
        return None

    def _ignores_cancel(self, now: float) -> bool:
        """Returns True if a cancelled job has kept the turn for too long. To wait is cheaper than
        to load the model again, unless it takes longer."""
        task = self._inference.turns.current
        if task is None or task.overrun(now) <= (grace := task.grace(self._grace)):
            return False
        name, where = task.job.job_id, innermost_calls(task.thread)
        log.warning("job %s was cancelled, and goes on after %.1f s: %s", name, grace, where)
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
        elif not self._tasks:
            # A new front must wait until the last one's jobs have stopped.
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
        stalled = self._stalled(now)
        if not stalled:
            self._ping(now)
        if self._stderr is not None:
            self._stderr.pass_on()
        self._send_alive(now, stalled)
        self._update_status(now)

    def _stalled(self, now: float) -> float:
        """Returns the seconds that the turn has taken; 0 while they are few."""
        task = self._inference.turns.current
        seconds = 0.0 if task is None else task.turn_seconds(now)
        if task is None or seconds < max(self.settings.stall_seconds, task.silent_seconds):
            self._stalling = False
            return 0.0
        if not self._stalling:
            self._stalling = True
            name, where = task.job.job_id, innermost_calls(task.thread)
            log.error("job %s made no progress for %.0f s; its thread: %s", name, seconds, where)
            if self._stderr is not None:
                # The watchdog's SIGABRT shows only where this thread is. Every client may read it.
                self._stderr.add(f"no progress in {where}")
        return seconds

    def _ping(self, now: float) -> None:
        if self._ping_every is not None and now - self._pinged_at >= self._ping_every:
            self._pinged_at = now
            self._notifier.watchdog()

    def _send_alive(self, now: float, stalled: float) -> None:
        if not self._loaded or self._front is None or self._front.wants_write:
            # A front that does not read needs no more of them.
            return
        if now - self._alive_at >= _ALIVE_SECONDS:
            self._alive_at = now
            jobs = tuple(task.state(now) for task in self._tasks.values())
            self._send(worker_events.Alive(jobs, round(stalled, 3)))

    def _update_status(self, now: float) -> None:
        # Not for each job: the manager would wake up when the job needs the processor.
        if not self._loaded or now - self._status_at < _STATUS_SECONDS:
            return
        self._status_at = now
        # Every user may read this line, so it names no job and no client.
        state = "busy" if self._tasks else "ready"
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
        """Sends an event, if there is a front. The turn word goes with `hello`."""
        if self._front is not None:
            hello = isinstance(event, worker_events.Hello)
            try:
                self._front.send(event, self._inference.turn_word.fd if hello else None)
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
        elif isinstance(event, worker_events.CancelJob) and event.key in self._tasks:
            self._tasks[event.key].cancel()

    def _start(self, job: worker_events.StartJob, fd: OwnedFd) -> None:
        # One short job finds a place although each place has one whose length was misjudged.
        full = len(self._tasks) >= 2 * self.settings.slots
        if not self._loaded or full or job.key in self._tasks:
            fd.close()
            raise ProtocolError("a job arrived while the worker was not ready for it")
        if self._stopping:
            fd.close()
            self._send(handed_back(job.key))
            return
        limit = self.settings.max_audio_seconds or job.max_audio_seconds
        job = replace(job, max_audio_seconds=min(limit, job.max_audio_seconds))
        self._tasks[job.key] = task = Task(job, fd)
        self._inference.submit(task)

    def _lose_front(self, reason: Exception) -> None:
        log.info("lost the front: %s", reason)
        for task in self._tasks.values():
            task.cancel()
        self._drop_front()

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
                self._on_end(message)
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
        self._grace = max(self._grace, hello.load_seconds)
        self._idle_since = time.monotonic()
        self._notifier.ready()
        self._introduce(
            replace(
                hello,
                spare=self.settings.spare,
                last=self._last_process,
                alive_seconds=_ALIVE_SECONDS,
                slots=self.settings.slots,
                max_audio_seconds=self.settings.max_audio_seconds,
            )
        )

    def _on_load_failed(self, failure: LoadFailed) -> None:
        log.error("cannot load: %s", failure.reason)
        self._notifier.status(f"cannot load: {failure.reason}")
        code = EXIT_CANNOT_LOAD if failure.permanent else EXIT_BROKEN
        self._refusal = code, time.monotonic()
        self._introduce(worker_events.CannotLoad(failure.reason, failure.self_test))

    def _on_end(self, end: worker_events.Done | worker_events.Failed) -> None:
        del self._tasks[end.key]
        self._idle_since = time.monotonic()
        self._send(end)
        self._jobs_done += 1
        self._poisoned |= isinstance(end, worker_events.Failed) and end.fatal
