"""The front's end of one worker: connect, hello, job, lost, and again for as long as its socket is.

Connecting is what makes systemd start the worker, and end-of-file is how its death is noticed.
"""

import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from asrd import wire
from asrd.channel import Channel
from asrd.errors import FieldError, ProtocolError
from asrd.events import (
    FROM_WORKER,
    PROTOCOL_VERSION,
    Bye,
    CancelJob,
    CannotLoad,
    Done,
    Failed,
    Hello,
    Job,
    JobProgress,
    JobSegment,
    Loading,
    parse_event,
)
from asrd.fdsocket import EXHAUSTED, Peer
from asrd.fields import dump
from asrd.front.scheduler import UnknownKey

log = logging.getLogger(__name__)

# A worker's answer may be a transcript of many hours; asrd wrote it, so the fast parser will do.
_LIMITS = wire.Limits(data=wire.MAX_TRANSCRIPT_DATA, strict=False, fds=0)
_OUTPUT_MAX = 16 * 1024 * 1024
# Seconds between tries, doubling. A worker that can't load asks for an admin, not for haste.
_RETRY_FIRST, _RETRY_LAST = 0.05, 5.0
_FAILED_FIRST, _FAILED_LAST = 1.0, 60.0
# Refused connections in a row that make a worker `down`: a restarting socket unit refuses a few.
_REFUSALS = 4
# A full backlog means that the worker is there, but slow to accept.
_NOT_REFUSED = EXHAUSTED | {errno.EAGAIN}


class Broken(Exception):
    """The worker said something it must not; it is treated as crashed."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended, and what it ran then: pairs of uid and job_id."""

    how: str
    jobs: tuple[tuple[int, str], ...]

    def told_to(self, peer: Peer) -> str:
        """One line. Root may know every job, anybody else their own: others are only counted."""
        named = [f"job {job_id}" for owner, job_id in self.jobs if peer.may_see(owner)]
        others = len(self.jobs) - len(named)
        told = named + [f"{others} of others"] * bool(others)
        return f"{self.how}, " + (f"running {', '.join(told)}" if told else "idle")


@dataclass(slots=True)
class WorkerInfo:
    """What the front knows of the process behind the socket; for `status`."""

    pid: int | None = None
    model: str | None = None
    languages: tuple[str, ...] = ()
    device: str | None = None
    compute_type: str | None = None
    load_seconds: float = 0.0
    jobs_done: int = 0
    restarts: int = 0
    last_death: Death | None = None


class Owner(Protocol):
    """What a link tells the front; each call happens at once, in the order of the events."""

    def worker_loading(self, link: "Link") -> None: ...
    def worker_ready(self, link: "Link", hello: Hello) -> None: ...
    def worker_lost(self, link: "Link", how: str) -> None: ...
    def worker_left(self, link: "Link", asleep: bool) -> None: ...
    def worker_failed(self, link: "Link", down: bool, reason: str) -> None: ...
    def job_segment(self, link: "Link", event: JobSegment) -> None: ...
    def job_progress(self, link: "Link", event: JobProgress) -> None: ...
    def job_done(self, link: "Link", event: Done) -> None: ...
    def job_failed(self, link: "Link", event: Failed) -> None: ...


class Link:
    def __init__(self, name: str, path: Path, owner: Owner, tasks: TaskGroup, buffer: memoryview):
        self.name = name
        self.path = path
        self.info = WorkerInfo()
        self._owner = owner
        self._tasks = tasks
        self._buffer = buffer
        self._channel: Channel | None = None
        self._woken = anyio.Event()
        self._ready = self._left = self._asleep = self._unexplained = False
        self._delay = _RETRY_FIRST
        self._scope = anyio.CancelScope()
        self._on_event: dict[type, Callable[[Any], None]] = {
            Loading: self._loading,
            Hello: self._hello,
            JobSegment: lambda event: owner.job_segment(self, event),
            JobProgress: lambda event: owner.job_progress(self, event),
            Done: self._done,
            Failed: lambda event: owner.job_failed(self, event),
        }

    def __repr__(self) -> str:
        return f"<Link {self.name} pid={self.info.pid} {self._channel!r}>"

    # --- what the front asks ------------------------------------------------------------------

    def start(self, job: Job, fd: int) -> None:
        if self._channel is not None:
            self._channel.send(Job.TYPE, dump(job), [fd])

    def cancel(self, key: int) -> None:
        if self._channel is not None:
            self._channel.send(CancelJob.TYPE, {"key": key})

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Leave the worker for good."""
        self._scope.cancel()

    # --- the connection -------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a connection to the worker until `close`."""
        with self._scope:
            while True:
                try:
                    await self._live_once()
                except Exception:
                    # Our bug; it may cost this worker a while, but never the daemon.
                    log.exception("worker %s: the front failed on it", self.name)
                    await anyio.sleep(_FAILED_FIRST)

    async def _live_once(self) -> None:
        sock = await self._connect()
        reason = await self._serve(sock)
        if self._asleep:
            await self._woken.wait()
        elif reason is not None:
            self._owner.worker_failed(self, False, reason)
            await self._pause(_FAILED_FIRST, _FAILED_LAST)
        elif self._ready and not self._left:
            # The next one starts by itself and takes longer than this to load.
            await anyio.sleep(_RETRY_FIRST)
        else:
            await self._pause(_RETRY_FIRST, _RETRY_LAST)

    async def _connect(self) -> socket.socket:
        refusals = 0
        while True:
            try:
                return _connected(self.path)
            except OSError as error:
                if error.errno not in _NOT_REFUSED:
                    refusals += 1
                    if refusals == _REFUSALS:
                        text = f"nothing listens at {self.path}: {error.strerror}"
                        self._owner.worker_failed(self, True, text)
            await self._pause(_RETRY_FIRST, _RETRY_LAST)

    async def _pause(self, first: float, last: float) -> None:
        self._delay = min(last, max(first, self._delay))
        await anyio.sleep(self._delay)
        self._delay *= 2

    async def _serve(self, sock: socket.socket) -> str | None:
        """One connection from beginning to end; returns why the worker can't load, if it said."""
        self._ready = self._left = self._asleep = False
        self._woken = anyio.Event()
        decoder = wire.Decoder(_LIMITS)
        channel = Channel(sock, decoder, self._tasks, self._buffer, output_max=_OUTPUT_MAX)
        self._channel = channel
        try:
            reason = await self._read(channel)
        except (ProtocolError, FieldError, UnknownKey, Broken) as error:
            self._lost(f"it broke the protocol: {error}")
        except OSError as error:
            self._lost(f"its connection broke: {error.strerror}")
        except Exception:
            # Our bug; it may cost this connection, but never the daemon.
            log.exception("worker %s: the front failed on what it said", self.name)
            self._lost("the front failed on what it said")
        else:
            if reason is not None:
                return reason
            if not self._left:
                self._lost("it closed the connection without a word")
        finally:
            self._channel = None
            channel.close()
        return None

    async def _read(self, channel: Channel) -> str | None:
        while True:
            framed = await channel.receive()
            if framed is None:
                return None
            try:
                event = parse_event(FROM_WORKER, framed.type, framed.data)
            finally:
                framed.close()
            if isinstance(event, CannotLoad):
                return event.text
            if isinstance(event, Bye):
                self._bye(event)
                return None
            if event is not None:
                self._handle(event)

    def _handle(self, event: Any) -> None:
        if self._ready == isinstance(event, (Loading, Hello)):
            raise Broken(f"{event.TYPE} {'after' if self._ready else 'before'} hello")
        self._on_event[type(event)](event)

    # --- what the worker says ---------------------------------------------------------------------

    def _loading(self, event: Loading) -> None:
        self._explain(event.last_exit)
        self.info.pid, self.info.model = event.pid, event.model
        self._owner.worker_loading(self)

    def _hello(self, event: Hello) -> None:
        if event.version != PROTOCOL_VERSION:
            raise Broken(f"it speaks version {event.version}, not {PROTOCOL_VERSION}")
        self._explain(event.last_exit)
        info = self.info
        info.pid, info.model, info.languages = event.pid, event.model, event.languages
        info.device, info.compute_type = event.device, event.compute_type
        info.load_seconds = event.load_seconds
        self._ready = True
        self._owner.worker_ready(self, event)

    def _explain(self, last_exit: str | None) -> None:
        """The next process knows from its service manager how the one before it ended."""
        if self._unexplained and last_exit is not None and self.info.last_death is not None:
            log.warning("worker %s: the one before was %s", self.name, last_exit)
            how = f"{last_exit}, {self.info.last_death.how}"
            self.info.last_death = replace(self.info.last_death, how=how)
        self._unexplained = False

    def _done(self, event: Done) -> None:
        self._owner.job_done(self, event)
        self.info.jobs_done += 1
        self._delay = _RETRY_FIRST

    def _bye(self, event: Bye) -> None:
        self._left = True
        self._asleep = event.reason == "idle"
        self.info.pid = None
        self._owner.worker_left(self, self._asleep)

    def _lost(self, how: str) -> None:
        # Whether a job ran is said by the front, which knows; here only how the end looked.
        self.info.restarts += 1
        self.info.pid = None
        self._owner.worker_lost(self, how)
        self._unexplained = True


def _connected(path: Path) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock
