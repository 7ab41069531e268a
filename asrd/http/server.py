"""uvicorn, made to fit a daemon: users from the socket, bounds for each of them, and a stop that a
load balancer sees before it happens."""

import asyncio
import math
import signal
import sys
import time
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from asrd.errors import Code
from asrd.http import errors, sse
from asrd.http.keys import Keys
from asrd.http.service import Service
from asrd.listener import watch_peer
from asrd.quota import Quota
from asrd.systemd import Notifier
from asrd.wire.fdsocket import peer_of
from asrd.wire.peer import Peer

# Seconds for the head of a request to arrive, and for the next one on the same connection to begin.
HEAD_SECONDS, KEEP_ALIVE_SECONDS = 30.0, 15
# Bytes behind a request, the start of the next one, that may arrive before it is answered.
BEHIND_MAX = 16 << 10
# The smallest mean size of a body's chunks, behind the first ones. Each takes as long as 100 KiB of
# data: sixty clients with chunks of one byte would keep all others waiting for half a minute.
CHUNK_MIN, CHUNKS_FREE = 32, 1024
# Bytes that are read, and parsed, before it is another connection's turn.
READ_SIZE = 32 << 10


class _Parser(h11.Connection):
    """h11, which refuses bodies in tiny chunks."""

    _chunks = _size = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._chunks += event.chunk_end
            self._size += len(event.data)
            if self._size < CHUNK_MIN * (self._chunks - CHUNKS_FREE):
                raise h11.RemoteProtocolError(f"chunks of less than {CHUNK_MIN} bytes")
        return event


class Protocol(H11Protocol):
    """One connection. uvicorn itself gives a client any time to send the head of a request, and
    does not see a client hang up behind the start of another request."""

    _deadline: asyncio.TimerHandle | None = None
    _unread = math.inf
    _place: Quota | None = None

    def __init__(self, service: Service, **more: Any) -> None:
        super().__init__(**more)
        self.conn = _Parser(h11.SERVER)
        self._service = service
        self._behind = bytearray()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.max_size = READ_SIZE  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        watch_peer(sock)
        self._peer: Peer = peer_of(sock, transport.get_extra_info("peername"))
        self._place, refusal = self._service.place(self._peer.user)
        if self._place is None:
            transport.abort()
            return
        self._place.add(self._peer.user, 1)
        self.app_state = {
            **self.app_state,
            "peer": self._peer,
            "abort": transport.abort,
            "refusal": refusal,
        }
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._is_answering() and not self.cycle.more_body:
            # Not for h11, which would make uvicorn stop to read, or to answer: what follows a
            # request may be the next one, or nothing that means anything.
            self._behind += data
            if len(self._behind) > BEHIND_MAX:
                self.transport.abort()
            return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()
        behind, self._behind = bytes(self._behind), bytearray()
        if behind and not self.transport.is_closing():
            self.data_received(behind)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP as all errors are answered, if no answer has begun."""
        found = sys.exception()
        status = getattr(found, "error_status_hint", 400)
        if self._is_answering():
            # The request ends in its middle; the task that serves it sees a client that left.
            self.cycle.disconnected = self.cycle.response_complete = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        error = errors.HttpError(status, f"HTTP: {found}", code=Code.BAD_REQUEST, retry=False)
        answer = errors.response(error)
        self._service.responses.count(status)
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._place is not None:
            self._place.add(self._peer.user, -1)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Limits the time without a request: before its head is complete, and after an answer, for
        the rest of a body that nobody wants, and for the answer to be read."""
        if self._is_answering():
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None:
            self._unread = math.inf
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._expire)

    def _expire(self) -> None:
        """Closes the connection, unless the client is still reading a long answer."""
        unread = self.transport.get_write_buffer_size()
        if not 0 < unread < self._unread:
            self.transport.abort()
            return
        self._unread = unread
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._expire)


class Server(uvicorn.Server):
    """At the first signal it only says that it will stop; `drain_seconds` later it does."""

    def __init__(self, service: Service, app: ASGIApp, keys: Keys | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(Protocol, service),  # type: ignore[arg-type]
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                # Headers of anybody would say who the client is.
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                backlog=4096,
            )
        )
        self._service = service
        self._keys = keys
        self._notifier = Notifier()
        self._stop_at: float | None = None

    async def startup(self, *args: Any, **more: Any) -> None:
        await super().startup(*args, **more)
        self._notifier.ready()

    async def on_tick(self, counter: int) -> bool:
        """uvicorn calls it ten times a second."""
        self._notifier.watchdog()
        if self._keys is not None and counter % 10 == 0:
            self._keys.refresh()
        stop = self._stop_at is not None and time.monotonic() >= self._stop_at
        return await super().on_tick(counter) or stop

    async def shutdown(self, *args: Any, **more: Any) -> None:
        """Ends uploads that are not complete, after `stop_seconds` the rest, and READ_SECONDS later
        connections whose client still reads: it could take any time for a long answer."""
        self._service.uploads.end()
        loop, seconds = asyncio.get_running_loop(), self._service.settings.stop_seconds
        timers = (
            loop.call_later(seconds, self._service.answers.end),
            loop.call_later(seconds + sse.READ_SECONDS, self._abort),
        )
        await super().shutdown(*args, **more)
        for timer in timers:
            timer.cancel()
        self._notifier.close()

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal ends the wait, a third one the requests."""
        if self._stop_at is None:
            self._service.draining = True
            self._stop_at = time.monotonic() + self._service.settings.drain_seconds
            self._notifier.stopping()
        elif not self.should_exit:
            self.should_exit = True
        elif sig == signal.SIGINT:
            self.force_exit = True
            # From Python 3.12 on, the server is not closed before all of its connections are.
            for connection in self.server_state.connections:
                connection.loop.call_soon_threadsafe(connection.transport.abort)
