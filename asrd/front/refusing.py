"""The front while its settings are wrong: it answers each client with the mistake, until they are
right. If it ended instead, it would be started again and again while its clients wait."""

import logging
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio

from asrd import systemd
from asrd.errors import ConfigError, Unavailable
from asrd.front.client_connections import ClientConnections
from asrd.front.doors import Door
from asrd.front.front import Front
from asrd.front.reporting import snapshot
from asrd.front.session import Session
from asrd.front.stream import DISCARD
from asrd.settings import FrontSettings
from asrd.snapshot import SETTINGS_WRONG
from asrd.wire import frames
from asrd.wire.client_events import AudioStart, StatusRequest, Transcribe
from asrd.wire.connection import Connection
from asrd.wire.fdsocket import READ_SIZE
from asrd.wire.peer import Peer

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between two looks at the settings.
_LOOK_SECONDS = 1.0
# Seconds for clients that are connected without an answer yet, when the settings are right.
_FAREWELL_SECONDS = 3.0
_POLL_SECONDS = 0.01


def refuse(
    listeners: Mapping[str, list[socket.socket]], problem: str, attempt: Callable[[], T]
) -> T | None:
    """Refuses the clients of all listeners, by their doors' names, until `attempt` no longer raises
    ConfigError. Returns its result, or None after a signal to stop."""
    return anyio.run(_Refusing(listeners, problem).run, attempt)


class _Refusing:
    def __init__(self, listeners: Mapping[str, list[socket.socket]], problem: str) -> None:
        self._buffer = memoryview(bytearray(READ_SIZE))
        # Never started: it has no workers.
        self._front = Front(FrontSettings(), self._buffer)
        self._listeners = listeners
        self.unanswered: set[_Session] = set()
        self.problem = problem

    async def run(self, attempt: Callable[[], T]) -> T | None:
        self._front.started_at = anyio.current_time()
        found = None
        async with anyio.create_task_group() as tasks:
            clients = ClientConnections(self._front, tasks, self._buffer, self._meet)
            async with anyio.create_task_group() as accepting:
                for name, sockets in self._listeners.items():
                    for listener in sockets:
                        accepting.start_soon(clients.accept, listener, self._front.doors[name])
                with anyio.open_signal_receiver(*systemd.FRONT_SIGNALS) as signals:
                    with anyio.CancelScope() as looking:
                        accepting.start_soon(_cancel_at_signal, signals, looking)
                        found = await self._look(attempt)
                # Clients that connect from now on wait for the front.
                accepting.cancel_scope.cancel()
            with anyio.move_on_after(_FAREWELL_SECONDS):
                while self.unanswered:
                    await anyio.sleep(_POLL_SECONDS)
            tasks.cancel_scope.cancel()
        return found

    def _meet(self, front: Front, peer: Peer, door: Door) -> Session:
        return _Session(front, peer, door, self)

    async def _look(self, attempt: Callable[[], T]) -> T:
        """Waits until `attempt` succeeds; shows the mistake meanwhile."""
        notifier = systemd.Notifier()
        pause = min(_LOOK_SECONDS, systemd.watchdog_seconds() or _LOOK_SECONDS)
        logged = None
        try:
            notifier.ready()
            while True:
                if self.problem != logged:
                    log.error("%s: every client is refused until it is corrected", self.problem)
                    logged = self.problem
                notifier.status(f"unavailable · {self.problem}")
                notifier.watchdog()
                await anyio.sleep(pause)
                try:
                    found = attempt()
                except ConfigError as error:
                    self.problem = str(error)
                else:
                    log.info("the settings are right again")
                    return found
        finally:
            notifier.close()


class _Session(Session):
    """A conversation in which no audio is taken."""

    def __init__(self, front: Front, peer: Peer, door: Door, refusing: _Refusing) -> None:
        super().__init__(front, peer, door)
        self._refusing = refusing

    async def run(self, connection: Connection) -> None:
        self._refusing.unanswered.add(self)
        try:
            await super().run(connection)
        finally:
            self._refusing.unanswered.discard(self)

    def send(self, kind: str, data: dict[str, Any] | bytes) -> None:
        super().send(kind, data)
        self._refusing.unanswered.discard(self)

    def open_sink(self, frame: frames.Frame) -> frames.Sink:
        return DISCARD

    def _dispatch(self, event: Any, frame: frames.Frame) -> None:
        if isinstance(event, Transcribe | AudioStart):
            raise Unavailable(f"the daemon's settings are wrong: {self._refusing.problem}")
        super()._dispatch(event, frame)

    def _status(self, event: StatusRequest) -> None:
        answer = snapshot.snapshot(self._front, self.peer, anyio.current_time())
        problems = [SETTINGS_WRONG + self._refusing.problem]
        # Without the crashes: their file is named by the settings.
        self.send("status", answer | {"state": "unavailable", "problems": problems})


async def _cancel_at_signal(signals: Any, scope: anyio.CancelScope) -> None:
    async for number in signals:
        log.info("%s", signal.Signals(number).name)
        scope.cancel()
        return
