"""One connection of an anyio program: events in, events out, no write ever waited for.

Sending never blocks: what the kernel does not take at once is kept and written by a task of its
own, up to a bound, past which the peer is cut off. So no peer can make another one wait, and no
cancelled write can break the framing.
"""

import os
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from asrd.errors import Busy, ProtocolError
from asrd.wire import fdsocket, frames
from asrd.wire.fds import OwnedFd
from asrd.wire.peer import User

# Seconds for which one busy peer may have the event loop before the others get their turn.
TURN_SECONDS = 0.002


class BufferBudget:
    """What is kept for the peers of all channels together, in bytes: answers that they have not
    read yet, and events that have not arrived whole. Past `limit`, the owner for whom most is kept
    loses the channel that keeps most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._of_owner: Counter[User] = Counter()
        self._channels: set[Connection] = set()

    def count(self, channel: "Connection", change: int) -> None:
        self.total += change
        self._of_owner[channel.owner] += change
        if not self._of_owner[channel.owner]:
            del self._of_owner[channel.owner]
        if channel.kept:
            self._channels.add(channel)
        else:
            self._channels.discard(channel)
        if self.total > self.limit and change > 0:
            owner = max(self._of_owner, key=self._of_owner.__getitem__)
            theirs = (kept for kept in self._channels if kept.owner == owner)
            max(theirs, key=lambda channel: channel.kept).cut_off()


class Connection:
    """Owns the socket. One task may receive; `send` may be called from anywhere in the loop.

    `buffer` is where reads go; channels of one event loop may share it, since what is read is
    consumed, or copied, before anything else runs. `owner`: the peer's user.
    """

    def __init__(
        self,
        sock: socket.socket,
        decoder: frames.Decoder,
        tasks: TaskGroup,
        buffer: memoryview,
        *,
        output_max: int,
        kept: BufferBudget | None = None,
        owner: User = -1,
        frame_timeout: float | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = decoder
        self._tasks = tasks
        self._buffer = buffer
        # Bytes and the descriptors that go with the first of them.
        self._output: deque[tuple[bytearray, list[OwnedFd]]] = deque()
        self._output_max = output_max
        self._all_kept = kept
        self.owner = owner
        self.unread = 0
        self._half = 0
        self._frame_timeout = frame_timeout
        self._frame_deadline: float | None = None
        self._turn_ends = 0.0
        self._flushed = anyio.Event()
        self.overflowed = self._may_be_told = False

    def __repr__(self) -> str:
        return f"<Connection fd={self._sock.fileno()} unread={self.unread} {self._decoder!r}>"

    @property
    def in_event(self) -> bool:
        """Whether an event has begun and is not complete."""
        return self._decoder.in_frame

    @property
    def kept(self) -> int:
        """Bytes that are kept for the peer: what it has not read, and its half event."""
        return self.unread + self._half

    @property
    def half_closed(self) -> bool:
        """After the end was received: whether the peer still reads (`shutdown(SHUT_WR)`). Other
        sockets than Unix ones can't tell that from a peer that is gone: it counts as gone."""
        if self._sock.family != socket.AF_UNIX:
            return False
        poll = select.poll()
        poll.register(self._sock, 0)
        return not poll.poll(0)

    async def receive(self) -> frames.Frame | None:
        """The next event, None at the end of the connection. The caller owns the event.

        Raises ProtocolError, OSError; Busy if the peer was cut off, and can be told.
        """
        while True:
            if time.monotonic() >= self._turn_ends:
                await self._give_way()
            if self._may_be_told:
                raise Busy("too much is kept for all clients, and most of it for you")
            if self.overflowed:
                return None
            event = self._decoder.next_frame()
            if event is not None:
                self._frame_deadline = None
                self._count_half(0)
                return event
            if not await self._read() and not self.overflowed:
                # Says so if the end came in the middle of an event.
                self._decoder.receive_eof()
                return self._decoder.next_frame()

    async def _give_way(self) -> None:
        # Whoever runs meanwhile may read into the same buffer.
        self._decoder.keep()
        self._count_half(self._decoder.held)
        await anyio.lowlevel.checkpoint()
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._turn_ends = time.monotonic() + TURN_SECONDS

    async def _read(self) -> int:
        while True:
            try:
                count, fds = fdsocket.receive_into(
                    self._sock, self._buffer, self._decoder.limits.fds
                )
            except BlockingIOError:
                await self._wait_readable()
                self._begin_turn()
            else:
                break
        self._decoder.receive(self._buffer[:count], fds)
        return count

    async def _wait_readable(self) -> None:
        self._count_half(self._decoder.held)
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
        message = frames.encode(kind, data, fds=len(fds))
        if self._output:
            self._keep(message, fds)
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

    def _keep(self, rest: bytes | memoryview, fds: Sequence[int]) -> None:
        # Before the event is added: however large, one answer may always wait.
        if self.unread > self._output_max:
            self.cut_off()
            return
        try:
            copies = _duplicates(fds)
        except OSError:
            # No descriptor is left. What can't be sent must not seem sent: `receive` sees the end.
            self.shutdown()
            return
        if not self._output:
            self._flushed = anyio.Event()
            self._tasks.start_soon(self._flush)
        if not self._output or copies:
            self._output.append((bytearray(), copies))
        self._output[-1][0].extend(rest)
        self._count(len(rest))

    def _count(self, unread: int, half: int = 0) -> None:
        self.unread += unread
        self._half += half
        if self._all_kept is not None and unread + half:
            self._all_kept.count(self, unread + half)

    def _count_half(self, held: int) -> None:
        if held != self._half and not self.overflowed:
            self._count(0, held - self._half)

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
            data, fds = self._output[0]
            try:
                with memoryview(data) as view:
                    sent = fdsocket.send(self._sock, [view], [fd.fileno() for fd in fds])
            except BlockingIOError:
                return
            del data[:sent]
            while fds:
                fds.pop().close()
            if not data:
                self._output.popleft()
            self._count(-sent)

    async def flush(self, seconds: float) -> None:
        """Wait until the peer has read everything, for so long at most."""
        if self._output:
            with anyio.move_on_after(seconds):
                await self._flushed.wait()

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        """End the connection; `receive` sees it."""
        try:
            self._sock.shutdown(how)
        except OSError:
            return

    def cut_off(self) -> None:
        """End the connection of a peer for which too much is kept."""
        self.overflowed = True
        # What it has not read is cut in the middle: no answer could follow.
        self._may_be_told = not self._output
        self._drop_output()
        self._drop_input()
        self.shutdown(socket.SHUT_RD if self._may_be_told else socket.SHUT_RDWR)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()
        self._drop_input()
        self._drop_output()

    def _drop_input(self) -> None:
        self._decoder.close()
        self._count(0, -self._half)

    def _drop_output(self) -> None:
        while self._output:
            for fd in self._output.popleft()[1]:
                fd.close()
        self._count(-self.unread)


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
