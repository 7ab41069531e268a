"""A plain iterable that may block, read by an event loop.

Not by anyio's threads: the end of a program waits for those, and nobody knows when a pipe or a
microphone goes on.
"""

import socket
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

import anyio

T = TypeVar("T")


async def read_in_thread(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """Yields the items, and raises what the iterable raises. Each is asked for when it is needed;
    closing leaves the thread alone with the last one."""
    ours, theirs = socket.socketpair()
    found: list[T | Exception] = []
    ours.setblocking(False)
    threading.Thread(target=_answer, args=(iter(items), theirs, found), daemon=True).start()
    try:
        while True:
            ours.send(b".")
            await anyio.wait_readable(ours)
            ours.recv(1)
            if not found:
                return
            item = found.pop()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        # `close` alone ends nothing while a forked process has a copy of the descriptor.
        ours.shutdown(socket.SHUT_RDWR)
        ours.close()


def _answer(items: Iterator[T], theirs: socket.socket, found: list[T | Exception]) -> None:
    """Takes one item for each byte that it receives, none at the end of the items."""
    with theirs, suppress(OSError):
        while theirs.recv(1):
            try:
                found.append(next(items))
            except StopIteration:
                pass
            except Exception as error:
                found.append(error)
            theirs.send(b".", socket.MSG_NOSIGNAL)
