"""uvicorn, made to fit a daemon: users from the socket, time limits, and a stop that a load
balancer sees before it happens."""

import asyncio
import math
import signal
import time
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from asrd.http.service import Service
from asrd.systemd import Notifier
from asrd.wire.fdsocket import peer_of

# Seconds for the head of a request to arrive, and for the next one on the same connection to begin.
HEAD_SECONDS, KEEP_ALIVE_SECONDS = 30.0, 15
# Connections besides those of `requests_max`.
OTHERS_MAX = 256


class Protocol(H11Protocol):
    """One connection. uvicorn itself gives a client any time to send the head of a request."""

    _deadline: asyncio.TimerHandle | None = None
    _unread = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        peer = peer_of(sock, transport.get_extra_info("peername"))
        self.app_state = {**self.app_state, "peer": peer, "abort": transport.abort}
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _watch(self) -> None:
        """Limits the time without a request: before its head is complete, and after an answer, for
        the rest of a body that nobody wants, and for the answer to be read."""
        if self.cycle is not None and not self.cycle.response_complete:
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

    def __init__(self, service: Service, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                # Headers of anybody would say who the client is.
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                limit_concurrency=service.settings.requests_max + OTHERS_MAX,
                backlog=4096,
            )
        )
        self._service = service
        self._notifier = Notifier()
        self._stop_at: float | None = None

    async def startup(self, *args: Any, **more: Any) -> None:
        await super().startup(*args, **more)
        self._notifier.ready()

    async def on_tick(self, counter: int) -> bool:
        self._notifier.watchdog()
        stop = self._stop_at is not None and time.monotonic() >= self._stop_at
        return await super().on_tick(counter) or stop

    async def shutdown(self, *args: Any, **more: Any) -> None:
        await super().shutdown(*args, **more)
        self._notifier.close()

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
