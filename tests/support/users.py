"""Several users of one front without root: the tests make up the credentials of each connection."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from asrd.front.doors import MAIN, WYOMING
from asrd.front.front import Front
from asrd.front.session import Session
from asrd.front.worker_connection import WorkerConnection
from asrd.front.worker_info import WorkerInfo
from asrd.settings import FrontSettings
from asrd.wire import fdsocket, frames
from asrd.wire.connection import Connection
from asrd.wire.peer import Peer

ALICE, BOB, ROOT = 1000, 1001, 0
START = {"rate": 16_000, "width": 2, "channels": 1}
PCM = {"encoding": "pcm_s16le"}
# Longer than any test takes on the slowest machine; no test waits that long.
PATIENCE = 100


class User:
    """A client's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.decoder = frames.Decoder(frames.FrameLimits(data=1 << 24))
        self.buffer = memoryview(bytearray(1 << 16))

    def send(
        self,
        kind: str,
        data: dict[str, Any] | None = None,
        payload: bytes = b"",
        fds: tuple[int, ...] = (),
    ) -> None:
        self.send_raw(frames.encode(kind, data, len(payload), len(fds)) + payload, fds)

    def send_raw(self, raw: bytes, fds: tuple[int, ...] = ()) -> None:
        assert fdsocket.send(self.sock, [raw], fds) == len(raw), "more than the kernel takes"

    async def expect(self, kind: str) -> dict[str, Any]:
        event = await self.event()
        assert event.type == kind, f"{event.type} {event.data} instead of {kind}"
        return event.data

    async def ping(self) -> None:
        """The front has handled all events that were sent, and answered nothing else."""
        self.send("ping")
        await self.expect("pong")

    async def event(self) -> frames.Frame:
        event = await self._receive()
        assert event is not None, "the connection ended"
        return event

    async def at_end(self) -> bool:
        return await self._receive() is None

    async def _receive(self) -> frames.Frame | None:
        while (event := self.decoder.next_frame()) is None:
            await anyio.wait_readable(self.sock)
            try:
                count, fds = fdsocket.receive_into(self.sock, self.buffer)
            except ConnectionResetError:
                return None
            if not count:
                return None
            self.decoder.receive(self.buffer[:count], fds)
        return event

    def close(self) -> None:
        self.decoder.close()
        self.sock.close()


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Connection, User, TaskGroup]]:
    """A connection alone, the user at its other end, and tasks that end with it."""
    ours, theirs = socket.socketpair()
    user = User(theirs)
    buffer = options.pop("buffer", None) or memoryview(bytearray(1 << 16))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            decoder = frames.Decoder(frames.FrameLimits())
            channel = Connection(ours, decoder, tasks, buffer, **{"output_max": 1 << 24, **options})
            try:
                yield channel, user, tasks
            finally:
                channel.close()
                user.close()


class Users:
    """A front with one worker that never loads its model, so that every accepted job waits."""

    def __init__(self, tasks: TaskGroup, **settings: Any) -> None:
        self.settings = FrontSettings(
            worker_dir="/nonexistent", crash_file="/nonexistent/crashes.json", **settings
        )
        self._buffer = memoryview(bytearray(fdsocket.READ_SIZE))
        self.front = Front(self.settings, self._buffer)
        self.add_worker("0")
        self._tasks = tasks
        self._users: list[User] = []

    def add_worker(self, name: str) -> WorkerInfo:
        self.front.scheduler.worker_added(name, anyio.current_time())
        info = WorkerInfo()
        connection = SimpleNamespace(info=info, cancel=lambda key: None, wake=lambda: None)
        self.front.connections[name] = cast(Any, connection)
        return info

    def play_worker(self, name: str = "0") -> User:
        """Returns the worker's end of its next connection."""
        now, connections = anyio.current_time(), self.front.connections
        if not isinstance(connections.get(name), WorkerConnection):
            self.front.scheduler.worker_added(name, now)
            path = Path("/nonexistent")
            made = WorkerConnection(name, path, self.front, self._tasks, self._buffer)
            connections[name] = made
        ours, theirs = socket.socketpair()
        self._tasks.start_soon(connections[name]._serve, ours)
        self._users.append(User(theirs))
        return self._users[-1]

    def connect(self, uid: int, door: str = MAIN) -> User:
        return self._serve(Peer(pid=7, uid=uid, gid=uid), door)

    def connect_from(self, address: str, door: str = WYOMING) -> User:
        """A peer without credentials."""
        return self._serve(Peer(None, None, None, address), door)

    def _serve(self, peer: Peer, door: str) -> User:
        ours, theirs = socket.socketpair()
        session = Session(self.front, peer, self.front.doors[door])
        limits = self.front.doors[door].limits
        channel = Connection(
            ours,
            frames.Decoder(limits, session.open_sink),
            self._tasks,
            self._buffer,
            output_max=self.settings.output_max_bytes,
            frame_timeout=self.settings.frame_timeout_seconds,
        )

        async def serve() -> None:
            try:
                await session.run(channel)
            finally:
                channel.close()

        self._tasks.start_soon(serve)
        self._users.append(User(theirs))
        return self._users[-1]

    def leave(self) -> None:
        for user in self._users:
            user.close()


@asynccontextmanager
async def users(**settings: Any) -> AsyncIterator[Users]:
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            made = Users(tasks, **settings)
            # As Front.start does, without a look for workers.
            made.front._tasks = tasks
            try:
                yield made
            finally:
                made.leave()
