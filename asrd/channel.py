"""One connection of an anyio program: events in, events out, no write ever waited for.

Sending never blocks: what the kernel does not take at once is kept and written by a task of its
own, up to a bound, past which the peer is cut off. So no peer can make another one wait, and no
cancelled write can break the framing.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from asrd import fdsocket, wire
from asrd.errors import ProtocolError
from asrd.ownedfd import OwnedFd

# Seconds for which one busy peer may have the event loop before the others get their turn.
TURN_SECONDS = 0.002


class Channel:
    """Owns the socket. One task may receive; `send` may be called from anywhere in the loop.

    `buffer` is where reads go; channels of one event loop may share it, since what is read is
    consumed, or copied, before anything else runs.
    """

    def __init__(
        self,
        sock: socket.socket,
        decoder: wire.Decoder,
        tasks: TaskGroup,
        buffer: memoryview,
        *,
        output_max: int,
        frame_timeout: float | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = decoder
        self._tasks = tasks
        self._buffer = buffer
        self._output: deque[tuple[memoryview, list[OwnedFd]]] = deque()
        self._output_bytes = 0
        self._output_max = output_max
        self._frame_timeout = frame_timeout
        self._frame_deadline: float | None = None
        self._turn_ends = 0.0
        self._flushed = anyio.Event()
        self.overflowed = False

    def __repr__(self) -> str:
        return f"<Channel fd={self._sock.fileno()} unsent={self._output_bytes} {self._decoder!r}>"

    async def receive(self) -> wire.Event | None:
        """The next event, None at the end of the connection. The caller owns the event.

        Raises ProtocolError, OSError.
        """
        while True:
            if time.monotonic() >= self._turn_ends:
                await self._give_way()
            event = self._decoder.next_event()
            if event is not None:
                self._frame_deadline = None
                return event
            if not await self._read():
                # Says so if the end came in the middle of an event.
                self._decoder.receive_eof()
                return self._decoder.next_event()

    async def _give_way(self) -> None:
        # Whoever runs meanwhile may read into the same buffer.
        self._decoder.keep()
        await anyio.lowlevel.checkpoint()
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._turn_ends = time.monotonic() + TURN_SECONDS

    async def _read(self) -> int:
        while True:
            try:
                count, fds = fdsocket.receive_into(self._sock, self._buffer)
            except BlockingIOError:
                await self._wait_readable()
                self._begin_turn()
            else:
                break
        self._decoder.receive(self._buffer[:count], fds)
        return count

    async def _wait_readable(self) -> None:
        if self._frame_timeout is None or not self._decoder.in_frame:
            self._frame_deadline = None
            await anyio.wait_readable(self._sock)
            return
        if self._frame_deadline is None:
            self._frame_deadline = anyio.current_time() + self._frame_timeout
        with anyio.CancelScope(deadline=self._frame_deadline) as scope:
            await anyio.wait_readable(self._sock)
        if scope.cancelled_caught:
            raise ProtocolError(f"an event took longer than {self._frame_timeout:g} s to arrive")

    def send(self, kind: str, data: dict[str, Any] | None = None, fds: Sequence[int] = ()) -> None:
        """Send an event, at once or as soon as the peer reads. Never raises: a peer that is gone
        is noticed by `receive`. The descriptors stay the caller's."""
        message = wire.encode(kind, data, fds=len(fds))
        if self._output:
            self._keep(memoryview(message), fds)
            return
        try:
            sent = fdsocket.send(self._sock, [message], fds)
        except BlockingIOError:
            sent = 0
        except OSError:
            # Gone, or too many descriptors on their way (ETOOMANYREFS): `receive` must see it.
            self.shutdown()
            return
        if sent < len(message):
            self._keep(memoryview(message)[sent:], () if sent else fds)

    def _keep(self, rest: memoryview, fds: Sequence[int]) -> None:
        if self.overflowed:
            return
        try:
            self._output.append((rest, _duplicates(fds)))
        except OSError:
            # No descriptor is left. What can't be sent must not seem sent: `receive` sees the end.
            self.shutdown()
            return
        self._output_bytes += len(rest)
        if self._output_bytes > self._output_max:
            self.overflowed = True
            self.shutdown()
        elif len(self._output) == 1:
            self._flushed = anyio.Event()
            self._tasks.start_soon(self._flush)

    async def _flush(self) -> None:
        try:
            while self._output:
                await anyio.wait_writable(self._sock)
                self._write_some()
        except (OSError, anyio.ClosedResourceError):
            self._drop_output()
        finally:
            self._flushed.set()

    def _write_some(self) -> None:
        while self._output:
            rest, fds = self._output[0]
            try:
                sent = fdsocket.send(self._sock, [rest], [fd.fileno() for fd in fds])
            except BlockingIOError:
                return
            self._output_bytes -= sent
            while fds:
                fds.pop().close()
            if sent < len(rest):
                self._output[0] = (rest[sent:], fds)
                return
            self._output.popleft()

    async def flush(self, seconds: float) -> None:
        """Wait until the peer has read everything, for so long at most."""
        if self._output:
            with anyio.move_on_after(seconds):
                await self._flushed.wait()

    def shutdown(self) -> None:
        """End the connection; `receive` sees it."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()
        self._decoder.close()
        self._drop_output()

    def _drop_output(self) -> None:
        while self._output:
            for fd in self._output.popleft()[1]:
                fd.close()
        self._output_bytes = 0


def _duplicates(fds: Sequence[int]) -> list[OwnedFd]:
    """Raises OSError, and leaves none."""
    made: list[OwnedFd] = []
    try:
        for fd in fds:
            made.append(OwnedFd(os.dup(fd)))
    except OSError:
        for copy in made:
            copy.close()
        raise
    return made
