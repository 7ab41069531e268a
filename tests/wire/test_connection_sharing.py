"""Channels of one event loop share a buffer; and none stays silent about a send that failed."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

import asrd.wire.connection
from asrd.wire import fdsocket, frames
from asrd.wire.connection import Connection

pytestmark = pytest.mark.anyio


@contextmanager
def channel(
    tasks: anyio.abc.TaskGroup, buffer: memoryview
) -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    made = Connection(ours, frames.Decoder(frames.FrameLimits()), tasks, buffer, output_max=1 << 20)
    try:
        yield made, theirs
    finally:
        made.close()
        theirs.close()


@pytest.mark.parametrize("size", [64, 4096])
async def test_busy_channels_do_not_read_into_each_others_events(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gives way after each event: in the middle of one read, or of one event."""
    monkeypatch.setattr(asrd.wire.connection, "TURN_SECONDS", 0.0)
    buffer = memoryview(bytearray(size))
    said = {name: [f"{name}{number}" for number in range(60)] for name in "ab"}
    heard: dict[str, list[str]] = {"a": [], "b": []}

    async def listen(name: str, made: Connection) -> None:
        for _ in said[name]:
            event = await made.receive()
            assert event is not None
            heard[name].append(event.data["text"])

    async with anyio.create_task_group() as tasks:
        with channel(tasks, buffer) as (a, a_peer), channel(tasks, buffer) as (b, b_peer):
            for name, peer in (("a", a_peer), ("b", b_peer)):
                peer.sendall(b"".join(frames.encode("ping", {"text": text}) for text in said[name]))
            async with anyio.create_task_group() as listeners:
                listeners.start_soon(listen, "a", a)
                listeners.start_soon(listen, "b", b)
    assert heard == said


async def test_a_send_that_fails_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sock: socket.socket, buffers: Any, fds: Any) -> int:
        raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")

    async with anyio.create_task_group() as tasks:
        with channel(tasks, memoryview(bytearray(4096))) as (made, peer):
            peer.sendall(frames.encode("pong"))
            monkeypatch.setattr(fdsocket, "send", refuse)
            made.send("ping")
            event = await made.receive()
            assert event is not None
            assert event.type == "pong"
            assert await made.receive() is None
