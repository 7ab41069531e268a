"""The front's connection to one worker, made again after each loss, as long as its socket is there.

Connecting makes systemd start the worker; the end of the connection reports its death.
"""

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from asrd.errors import Cause, Code, FieldError, ProtocolError
from asrd.front.discovery import connected
from asrd.front.early_deaths import EarlyDeaths
from asrd.front.reporting.crashes import Crash, JobRef
from asrd.front.retry_files import RetryFiles
from asrd.front.scheduling.scheduler import UnknownKey
from asrd.front.worker_info import WorkerInfo
from asrd.safe_text import one_line
from asrd.wire import frames, worker_events
from asrd.wire.connection import Connection
from asrd.wire.fdsocket import EXHAUSTED
from asrd.wire.fields import dump, parse_event
from asrd.wire.turn_word import TurnWord
from asrd.wire.worker_events import (
    Alive,
    Bye,
    Done,
    Failed,
    Hello,
    JobProgress,
    JobState,
    JobWindow,
    Loading,
)

log = logging.getLogger(__name__)

# A worker's answer may be a transcript of many hours. asrd wrote it, so the fast parser will do.
# The one descriptor that it sends is the turn word.
_LIMITS = frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False, fds=1)
_OUTPUT_MAX = 16 * 1024 * 1024
# Seconds between tries, doubling. A worker that can't load needs an admin, not more tries.
_RETRY_FIRST, _RETRY_LAST = 0.05, 5.0
_FAILED_FIRST, _FAILED_LAST = 1.0, 60.0
# Refused connections in a row that make a worker `down`: a restarting socket unit refuses a few.
_REFUSALS = 4
# A worker that sends nothing for so many seconds after it was connected to is `down`: it reports
# itself before it loads its model.
_SILENT_SECONDS = 60.0
# A full backlog means that the worker is there, but slow to accept.
_NOT_REFUSED = EXHAUSTED | {errno.EAGAIN}


class Broken(Exception):
    """The worker sent an event that it must not; it is treated as crashed."""


class Owner(Protocol):
    """The front, as a connection reports to it: at once, and in the order of the events."""

    def worker_loading(self, connection: "WorkerConnection", loading: Loading) -> None: ...
    def worker_ready(self, connection: "WorkerConnection", hello: Hello) -> None: ...
    def worker_lost(self, connection: "WorkerConnection", crash: Crash, turn: int) -> None: ...
    def worker_explained(self, connection: "WorkerConnection", crash: Crash) -> None: ...
    def worker_left(self, connection: "WorkerConnection", asleep: bool) -> None: ...
    def worker_failed(self, connection: "WorkerConnection", down: bool, reason: str) -> None: ...
    def job_states(self, connection: "WorkerConnection", states: tuple[JobState, ...]) -> None: ...
    def job_window(self, connection: "WorkerConnection", event: JobWindow) -> None: ...
    def job_progress(self, connection: "WorkerConnection", event: JobProgress) -> None: ...
    def job_done(self, connection: "WorkerConnection", event: Done) -> None: ...
    def job_failed(self, connection: "WorkerConnection", event: Failed) -> None: ...


class _Nobody:
    """The owner of a closed connection, whose task runs on to its next wait: the front knows
    nothing of its worker any more, or has another one of that name."""

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *_: None


class WorkerConnection:
    def __init__(self, name: str, path: Path, owner: Owner, tasks: TaskGroup, buffer: memoryview):
        self.name = name
        self.path = path
        self.info = WorkerInfo()
        self._owner = owner
        self._tasks = tasks
        self._buffer = buffer
        self._connection: Connection | None = None
        self._woken = anyio.Event()
        self._ready = self._left = self._asleep = self._unexplained = False
        # The reason that the process gave for its end, and its cause.
        self._fatal: tuple[str, Cause] | None = None
        self._delay = _RETRY_FIRST
        self._early_deaths = EarlyDeaths()
        # The reason that was reported last.
        self._reason = ""
        # The jobs that the process has not answered, by key, including cancelled ones.
        self._given: dict[int, JobRef] = {}
        self._turn_word: TurnWord | None = None
        self._scope = anyio.CancelScope()
        self._on_event: dict[type, Callable[[Any], None]] = {
            Loading: self._loading,
            Hello: self._hello,
            JobWindow: lambda event: self._owner.job_window(self, event),
            JobProgress: lambda event: self._owner.job_progress(self, event),
            Alive: self._alive,
            Done: self._done,
            Failed: self._failed,
        }

    # --- calls from the front -----------------------------------------------------------------

    def send_job(self, job: worker_events.StartJob, fd: int, ran: JobRef) -> None:
        if self._connection is not None:
            self._given[job.key] = ran
            log.debug(
                "worker %s: > job key=%d", self.name, job.key, extra={"fields": ran.log_fields}
            )
            self._connection.send(worker_events.StartJob.TYPE, dump(job), [fd])

    def cancel(self, key: int) -> None:
        if self._connection is not None:
            log.debug("worker %s: > cancel key=%d", self.name, key)
            self._connection.send(worker_events.CancelJob.TYPE, {"key": key})

    def wake(self) -> None:
        self.info.expected_at = anyio.current_time()
        self._woken.set()

    def close(self) -> None:
        """Leaves the worker for good; nothing more is reported."""
        self._owner = _Nobody()
        self._scope.cancel()

    # --- the connection -------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps a connection to the worker until `close`."""
        self.info.expected_at = self.info.found_at = anyio.current_time()
        with self._scope:
            while True:
                try:
                    await self._live_once()
                except Exception:
                    # Our bug: it may delay this worker, but never ends the daemon.
                    log.exception("worker %s: the front failed on it", self.name)
                    await anyio.sleep(_FAILED_FIRST)

    async def _live_once(self) -> None:
        sock = await self._connect()
        files = RetryFiles(self.name, self.path)
        reason = await self._serve(sock)
        if self._asleep:
            await self._woken.wait()
        elif reason is not None:
            self._failed_to_start(reason)
            await self._pause_until_changed(files)
        elif self._ready and not self._left:
            # The next one starts by itself and takes longer than this to load.
            await anyio.sleep(_RETRY_FIRST)
        else:
            await self._pause(_RETRY_FIRST, _RETRY_LAST)

    async def _connect(self) -> socket.socket:
        refusals = 0
        while True:
            try:
                return connected(self.path)
            except OSError as error:
                if error.errno not in _NOT_REFUSED:
                    refusals += 1
                    if refusals == _REFUSALS:
                        text = f"nothing listens at {self.path}: {error.strerror}"
                        self._failed_to_start(text, down=True)
            await self._pause(_RETRY_FIRST, _RETRY_LAST)

    async def _pause(self, first: float, last: float) -> None:
        self._delay = min(last, max(first, self._delay))
        await anyio.sleep(self._delay)
        self._delay *= 2

    async def _pause_until_changed(self, files: RetryFiles) -> None:
        self._delay = min(_FAILED_LAST, max(_FAILED_FIRST, self._delay))
        with anyio.move_on_after(self._delay):
            await files.changed()
            self._delay = 0.0
        self._delay *= 2

    async def _serve(self, sock: socket.socket) -> str | None:
        """Serves one connection to its end. Returns the reason if the worker can't load."""
        self._ready = self._left = self._asleep = False
        self._fatal, self.info.stalled_seconds = None, 0.0
        self._woken = anyio.Event()
        decoder = frames.Decoder(_LIMITS)
        connection = Connection(sock, decoder, self._tasks, self._buffer, output_max=_OUTPUT_MAX)
        self._connection = connection
        silence = anyio.CancelScope()
        self._tasks.start_soon(self._watch_silence, silence, anyio.current_time())
        try:
            reason = await self._read(connection)
        except (ProtocolError, FieldError, UnknownKey, Broken) as error:
            self._lost(f"it broke the protocol: {error}", Cause.PROTOCOL)
        except OSError as error:
            self._lost(f"its connection broke: {error.strerror}")
        except Exception:
            # Our bug: it costs this connection, but never the daemon.
            log.exception("worker %s: the front failed on its event", self.name)
            self._lost("the front failed on its event", Cause.UNKNOWN)
        else:
            if reason is not None:
                return reason
            if not self._left:
                self._lost("its connection ended without notice")
        finally:
            silence.cancel()
            self._connection = None
            self._given.clear()
            if self._turn_word is not None:
                self._turn_word.close()
                self._turn_word = None
            connection.close()
        return None

    async def _watch_silence(self, scope: anyio.CancelScope, since: float) -> None:
        """Reports a worker that sends nothing: one process after the other dies at once, and the
        connection waits in the socket."""
        with scope:
            await anyio.sleep(_SILENT_SECONDS)
            if self.info.heard_at <= since:
                text = f"it has reported nothing for {_SILENT_SECONDS:.0f} s after its start"
                self._failed_to_start(text, down=True)

    def _failed_to_start(self, reason: str, down: bool = False) -> None:
        self.info.loads, self.info.pid = False, None
        self.info.forget_model()
        self._reason = reason
        self._owner.worker_failed(self, down, reason)

    async def _read(self, connection: Connection) -> str | None:
        while True:
            frame = await connection.receive()
            if frame is None:
                return None
            log.debug("worker %s: < %s", self.name, frame.type)
            with contextlib.closing(frame):
                event = parse_event(worker_events.FROM_WORKER, frame.type, frame.data)
                if isinstance(event, Hello) and self._turn_word is None and frame.fds:
                    self._turn_word = TurnWord.received(frame.fds.pop())
            if isinstance(event, worker_events.CannotLoad):
                self._count_death()
                cause = Cause.SELF_TEST if event.self_test else Cause.CANNOT_LOAD
                self.info.failures[cause] += 1
                return event.text
            if isinstance(event, Bye):
                self._bye(event)
                return None
            if event is not None:
                self._handle(event)

    def _handle(self, event: Any) -> None:
        self.info.heard_at = anyio.current_time()
        if self._ready == isinstance(event, (Loading, Hello)):
            raise Broken(f"{event.TYPE} {'after' if self._ready else 'before'} hello")
        self._on_event[type(event)](event)

    # --- the worker's events ----------------------------------------------------------------------

    def _loading(self, event: Loading) -> None:
        self._explain(event)
        if event.pid != self.info.pid:
            log.info("worker %s: loading %s (pid %s)", self.name, event.model, event.pid)
        if event.model != self.info.model:
            self.info.forget_model()
        if event.languages or event.model != self.info.model:
            self.info.languages = event.languages
        self.info.pid, self.info.model = event.pid, event.model
        self._owner.worker_loading(self, event)

    def _hello(self, event: Hello) -> None:
        ours = worker_events.PROTOCOL_VERSION
        if event.version != ours:
            raise Broken(f"it speaks version {event.version}, not {ours}")
        self._explain(event)
        info = self.info
        info.pid, info.model, info.languages = event.pid, event.model, event.languages
        info.device, info.compute_type = event.device, event.compute_type
        info.cpu_threads, info.cores = event.cpu_threads, event.cores
        info.load_seconds = event.load_seconds
        info.alive_seconds, info.ended = event.alive_seconds, None
        info.loads = self._ready = True
        self._early_deaths.end()
        self._reason = ""
        self._owner.worker_ready(self, event)

    def _explain(self, event: Loading | Hello) -> None:
        """The next process knows from its service manager how the one before it ended. That may be
        another one than we lost: more may have died before they connected."""
        crash, last = self.info.last_death, event.last
        if self._unexplained and crash is not None and last is not None and crash.is_of(last):
            crash.explain(last)
            self._owner.worker_explained(self, crash)
            self._early_deaths.explain(crash.exit)
        self._count_death()

    def _count_death(self) -> None:
        """Counts the last crash under its cause, once nothing more can be learned of it."""
        if self._unexplained and self.info.last_death is not None:
            self.info.failures[self.info.last_death.cause] += 1
        self._unexplained = False

    def _alive(self, event: Alive) -> None:
        self.info.stalled_seconds = event.stalled_seconds
        for state in event.jobs:
            if state.key in self._given and state.audio_seconds is not None:
                self._given[state.key].audio_seconds = state.audio_seconds
        self._owner.job_states(self, event.jobs)

    def _failed(self, event: Failed) -> None:
        self._owner.job_failed(self, event)
        # A fatal failure ends the process, and the report of its death names this job.
        if event.fatal:
            cause = Cause.SELF_TEST if event.self_test else Cause.POISONED
            self._fatal = f"it ended itself: {one_line(event.text)}", cause
        else:
            self._given.pop(event.key, None)
        if event.code == Code.SHUTTING_DOWN:
            # It ends, and the next process is due.
            self.info.expected_at = anyio.current_time()

    def _done(self, event: Done) -> None:
        self._owner.job_done(self, event)
        self._given.pop(event.key, None)
        self._delay = _RETRY_FIRST

    def _bye(self, event: Bye) -> None:
        self._left = True
        self._asleep = event.reason == "idle"
        self.info.pid, self.info.expected_at = None, anyio.current_time()
        if event.reason == "cancelled":
            self.info.ended = "it ended itself: a cancelled job did not stop"
            self.info.failures[Cause.IGNORED_CANCEL] += 1
        self._owner.worker_left(self, self._asleep)

    def _lost(self, how: str, cause: Cause | None = None) -> None:
        self._count_death()
        if self._fatal is not None:
            how, cause = self._fatal
        elif cause is None and (seconds := self.info.stalled_seconds):
            # The watchdog has probably ended the process.
            how, cause = f"it made no progress for {seconds:.0f} s", Cause.NO_PROGRESS
        info, now = self.info, anyio.current_time()
        info.restarts += 1
        info.expected_at, info.ended = now, None
        turn = 0 if self._turn_word is None else self._turn_word.read()
        if turn in self._given:
            self._given[turn].in_turn = True
        jobs = tuple(self._given.values())
        crash = Crash(self.name, time.time(), now, how, jobs, info.pid, info.model, seen=cause)
        crash.loading = not self._ready
        info.last_death, info.pid = crash, None
        self._owner.worker_lost(self, crash, turn)
        self._unexplained = True
        reason = self._early_deaths.add(how, now) if crash.loading else None
        if reason is not None and reason != self._reason:
            self._failed_to_start(reason)
