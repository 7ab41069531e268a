"""A connection of an anyio program: frames in both directions, without waiting for a write.

`send` never blocks. The rest that the kernel does not take at once is buffered, and a task of its
own writes it; a peer whose buffer grows above a bound is cut off. So no peer makes another one
wait, and no cancelled write breaks the framing.
"""

import contextlib
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

# How long one busy peer may occupy the event loop before the others get their turn.
TURN_SECONDS = 0.002


class BufferBudget:
    """The bytes buffered for all connections together: unread answers and incomplete events.

    Above `limit`, the owner with the most buffered bytes loses the connection with the most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._of_owner: Counter[User] = Counter()
        self._connections: set[Connection] = set()

    def count(self, connection: "Connection", change: int) -> None:
        self.total += change
        self._of_owner[connection.owner] += change
        if not self._of_owner[connection.owner]:
            del self._of_owner[connection.owner]
        if connection.buffered:
            self._connections.add(connection)
        else:
            self._connections.discard(connection)
        if self.total > self.limit and change > 0:
            owner = max(self._of_owner, key=self._of_owner.__getitem__)
            theirs = [each for each in self._connections if each.owner == owner]
            max(theirs, key=lambda each: each.buffered).cut_off()


class Connection:
    """Owns the socket. One task may receive; any code of the event loop may send.

    buffer: the target of reads. The connections of one event loop may share it: received bytes are
        decoded or copied before other code runs.
    output_max: bytes of unread output above which the peer is cut off.
    budget: the bound for all connections together; owner: the peer's user, by which it counts.
    frame_timeout: seconds that one frame may take to arrive.
    """

    def __init__(
        self,
        sock: socket.socket,
        decoder: frames.Decoder,
        tasks: TaskGroup,
        buffer: memoryview,
        *,
        output_max: int,
        budget: BufferBudget | None = None,
        owner: User = -1,
        frame_timeout: float | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.decoder = decoder
        self._tasks = tasks
        self._buffer = buffer
        # Bytes, and the descriptors to be sent with the first of them.
        self._output: deque[tuple[bytearray, list[OwnedFd]]] = deque()
        self._output_max = output_max
        self._budget = budget
        self.owner = owner
        self.unread = 0
        self._incomplete = 0
        self._frame_timeout = frame_timeout
        self._frame_deadline: float | None = None
        self._turn_ends = 0.0
        self._flushed = anyio.Event()
        self.overflowed = self._can_answer = False

    def __repr__(self) -> str:
        return f"<Connection fd={self._sock.fileno()} unread={self.unread} {self.decoder!r}>"

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def in_event(self) -> bool:
        """True if an event has begun and is not complete."""
        return self.decoder.in_frame

    @property
    def buffered(self) -> int:
        """Bytes of the peer's unread answers and of its incomplete event."""
        return self.unread + self._incomplete

    @property
    def half_closed(self) -> bool:
        """After the end was received: True if the peer still reads (it called `shutdown(SHUT_WR)`).

        False for other sockets: they do not distinguish such a peer from one that is gone.
        """
        if self._sock.family != socket.AF_UNIX:
            return False
        poll = select.poll()
        poll.register(self._sock, 0)
        return not poll.poll(0)

    @property
    def output(self) -> bytes:
        """A copy of the unread answers."""
        return b"".join(data for data, _ in self._output)

    def resume_output(self, unread: bytes) -> None:
        """Goes on with the unread answers of another process."""
        if unread:
            self._enqueue(unread, ())

    def keep(self) -> None:
        """Must be called before a wait while a frame is handled: see `buffer`."""
        self.decoder.keep()

    async def receive(self) -> frames.Frame | None:
        """Returns the next frame, None at the end of the connection. The caller owns the frame.

        Raises ProtocolError and OSError, and Busy if the peer was cut off but can read an answer.
        """
        while True:
            if time.monotonic() >= self._turn_ends:
                await self._give_way()
            if self._can_answer:
                raise Busy("the daemon's client buffers are full, and yours is the largest")
            if self.overflowed:
                return None
            if (frame := self.decoder.next_frame()) is not None:
                self._frame_deadline = None
                self._count_incomplete(0)
                return frame
            if not await self._read() and not self.overflowed:
                # `next_frame` raises if the end came in the middle of an event.
                self.decoder.receive_eof()
                return self.decoder.next_frame()

    async def _give_way(self) -> None:
        # Another connection may read into the same buffer now.
        self.decoder.keep()
        self._count_incomplete(self.decoder.held)
        await anyio.lowlevel.checkpoint()
        self._turn_ends = time.monotonic() + TURN_SECONDS

    async def _read(self) -> int:
        while True:
            try:
                max_fds = self.decoder.limits.fds
                count, fds = fdsocket.receive_into(self._sock, self._buffer, max_fds)
            except BlockingIOError:
                await self._wait_readable()
                self._turn_ends = time.monotonic() + TURN_SECONDS
            else:
                self.decoder.receive(self._buffer[:count], fds)
                return count

    async def _wait_readable(self) -> None:
        self._count_incomplete(self.decoder.held)
        if self._frame_timeout is None or not self.decoder.in_frame:
            self._frame_deadline = None
            await anyio.wait_readable(self._sock)
            return
        if self._frame_deadline is None:
            self._frame_deadline = anyio.current_time() + self._frame_timeout
        with anyio.CancelScope(deadline=self._frame_deadline) as scope:
            await anyio.wait_readable(self._sock)
        if scope.cancelled_caught:
            raise ProtocolError(f"an event took longer than {self._frame_timeout:g} s to arrive")

    def send(
        self,
        kind: str,
        data: dict[str, Any] | bytes | None = None,
        fds: Sequence[int] = (),
        payload: bytes = b"",
    ) -> None:
        """Sends an event, at once or when the peer reads. The caller keeps the descriptors. `data`
        may be JSON already.

        Never raises: `receive` reports a peer that is gone.
        """
        message = frames.encode(kind, data, len(payload), len(fds)) + payload
        if self._output:
            self._enqueue(message, fds)
            return
        try:
            sent = fdsocket.send(self._sock, [message], fds)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The peer is gone, or too many descriptors are in flight (ETOOMANYREFS).
            self.shutdown()
            return
        if sent < len(message):
            self._enqueue(memoryview(message)[sent:], () if sent else fds)

    def _enqueue(self, rest: bytes | memoryview, fds: Sequence[int]) -> None:
        # Checked before the event is added: one answer may always wait, of any size.
        if self.unread > self._output_max:
            self.cut_off()
            return
        try:
            copies = _duplicates(fds)
        except OSError:
            # Out of descriptors. The connection ends, since the event can't be sent.
            self.shutdown()
            return
        if not self._output:
            self._flushed = anyio.Event()
            self._tasks.start_soon(self._flush)
        if not self._output or copies:
            self._output.append((bytearray(), copies))
        self._output[-1][0].extend(rest)
        self._count(len(rest))

    def _count(self, unread: int, incomplete: int = 0) -> None:
        self.unread += unread
        self._incomplete += incomplete
        if self._budget is not None and unread + incomplete:
            self._budget.count(self, unread + incomplete)

    def _count_incomplete(self, held: int) -> None:
        if not self.overflowed:
            self._count(0, held - self._incomplete)

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
        """Waits until the peer has read everything, for `seconds` at most."""
        if self._output:
            with anyio.move_on_after(seconds):
                await self._flushed.wait()

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        """Ends the connection: `receive` returns None."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(how)

    def cut_off(self) -> None:
        """Ends the connection of a peer with too many buffered bytes."""
        self.overflowed = True
        # After a part of an unread answer, no other answer could follow.
        self._can_answer = not self._output
        self._drop_output()
        self._drop_input()
        self.shutdown(socket.SHUT_RD if self._can_answer else socket.SHUT_RDWR)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()
        self._drop_input()
        self._drop_output()

    def _drop_input(self) -> None:
        self.decoder.close()
        self._count(0, -self._incomplete)

    def _drop_output(self) -> None:
        while self._output:
            for fd in self._output.popleft()[1]:
                fd.close()
        self._count(-self.unread)


def _duplicates(fds: Sequence[int]) -> list[OwnedFd]:
    """Returns copies of all descriptors. Raises OSError and leaves none open."""
    made: list[OwnedFd] = []
    try:
        for fd in fds:
            made.append(OwnedFd(os.dup(fd)))
    except OSError:
        for copy in made:
            copy.close()
        raise
    return made
