"""Accepts clients' connections, and serves each to its end."""

import logging
import math
import socket
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from asrd.errors import Code
from asrd.front.doors import Door
from asrd.front.front import Front
from asrd.front.request import error
from asrd.front.scheduling.actions import Failure
from asrd.front.session import Session
from asrd.listener import watch_peer
from asrd.wire import frames
from asrd.wire.client_events import Error
from asrd.wire.connection import BufferBudget, Connection
from asrd.wire.fdsocket import peer_of
from asrd.wire.fields import dump
from asrd.wire.peer import Peer

log = logging.getLogger(__name__)

# Seconds until the next try to accept, after the process ran out of descriptors.
_EXHAUSTED_SECONDS = 0.1
# Seconds between two log entries about that.
_LOG_AGAIN_SECONDS = 10.0

# Makes the session of a client.
Meet = Callable[[Front, Peer, Door], Session]


class ClientConnections:
    """All connections of clients. Their tasks run in `tasks`."""

    def __init__(
        self, front: Front, tasks: TaskGroup, buffer: memoryview, meet: Meet = Session
    ) -> None:
        """`buffer`: see Connection."""
        self._front, self._tasks, self._buffer, self._meet = front, tasks, buffer, meet
        self._open: set[Connection] = set()
        self._budget = BufferBudget(front.settings.unread_max_bytes)

    async def accept(self, listener: socket.socket, door: Door) -> None:
        """Accepts clients until it is cancelled."""
        listener.setblocking(False)
        logged_at = -math.inf
        while True:
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                await anyio.wait_readable(listener)
            except OSError as problem:
                if anyio.current_time() > logged_at + _LOG_AGAIN_SECONDS:
                    log.error("cannot accept a connection: %s", problem.strerror)
                    logged_at = anyio.current_time()
                await anyio.sleep(_EXHAUSTED_SECONDS)
            else:
                self._tasks.start_soon(self._serve, sock, peer_of(sock, address), door)
                await anyio.lowlevel.checkpoint()

    async def _serve(self, sock: socket.socket, peer: Peer, door: Door) -> None:
        watch_peer(sock)
        session = self._meet(self._front, peer, door)
        full = door.quota.why_full(peer.user)
        await self._run(session, self.connect(sock, session), full)

    def connect(self, sock: socket.socket, session: Session) -> Connection:
        """Returns the connection of a session, which `serve` must get."""
        return Connection(
            sock,
            frames.Decoder(session.door.limits, session.open_sink),
            self._tasks,
            self._buffer,
            output_max=session.door.output_max,
            budget=self._budget,
            owner=session.peer.user,
            frame_timeout=self._front.settings.frame_timeout_seconds,
        )

    def serve(self, session: Session, connection: Connection) -> None:
        self._tasks.start_soon(self._run, session, connection)

    async def flush(self, seconds: float) -> None:
        """Waits until all clients have read their answers, for so many seconds at most."""
        with anyio.move_on_after(seconds):
            for connection in list(self._open):
                await connection.flush(seconds)

    async def _run(self, session: Session, connection: Connection, full: str | None = None) -> None:
        """Serves a client to its end; `full`: why it is refused."""
        door, peer = session.door, session.peer
        self._open.add(connection)
        door.quota.add(peer.user, 1)
        try:
            if full is None:
                await session.run(connection)
            else:
                failure = Failure(Code.BUSY, full, retry_after_ms=1000)
                self._front.count_refusal(peer, failure)
                connection.send(Error.TYPE, dump(error(failure)))
            if connection.overflowed:
                text = "cut off: it does not read its answers, or does not finish its events"
                log.warning(text, extra={"fields": peer.log_fields})
        except Exception:
            # Our bug: it costs this client its connection, and other clients nothing.
            log.exception("a connection failed", extra={"fields": peer.log_fields})
        finally:
            self._open.remove(connection)
            door.quota.add(peer.user, -1)
            connection.close()
