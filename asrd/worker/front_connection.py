"""The worker's end of the connection from the front. No read or write blocks."""

import select
import socket
import time

from asrd.errors import Code, ProtocolError
from asrd.wire import fdsocket, frames
from asrd.wire.fds import OwnedFd
from asrd.wire.fields import dump, parse_event
from asrd.wire.worker_events import TO_WORKER, Done, Failed, FrontEvent, StartJob, WorkerEvent

# A front that leaves more than this unread counts as gone.
_UNSENT_MAX = 128 * 1024 * 1024
# The limit of the client's hop, less room for what the front adds.
_ANSWER_MAX = frames.MAX_TRANSCRIPT_DATA - 64 * 1024


class FrontGone(Exception):
    """The connection was closed or broke; the worker waits for the next one."""


class FrontConnection:
    """Owns the socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = frames.Decoder(
            frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False)
        )
        self._buffer = memoryview(bytearray(64 * 1024))
        self._unsent = bytearray()
        self._unsent_fd: OwnedFd | None = None

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._unsent)

    def send(self, event: WorkerEvent, fd: OwnedFd | None = None) -> None:
        """Sends an event, now or by a later `flush`; `fd` stays the caller's. Raises FrontGone."""
        self._unsent += _encoded(event, 0 if fd is None else 1)
        self._unsent_fd = fd or self._unsent_fd
        if len(self._unsent) > _UNSENT_MAX:
            raise FrontGone("the front does not read")
        self.flush()

    def flush(self) -> None:
        """Writes as much as the kernel takes. Raises FrontGone."""
        try:
            while self._unsent:
                piece = bytes(self._unsent[: fdsocket.READ_SIZE])
                fds = () if self._unsent_fd is None else (self._unsent_fd.fileno(),)
                del self._unsent[: fdsocket.send(self._sock, [piece], fds)]
                self._unsent_fd = None
        except BlockingIOError:
            return
        except OSError as error:
            raise FrontGone(str(error)) from None

    def finish(self, seconds: float) -> None:
        """Writes everything, within a time limit. Raises FrontGone."""
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        until = time.monotonic() + seconds
        while self._unsent and (left := until - time.monotonic()) > 0:
            poll.poll(1000 * left)
            self.flush()

    def receive(self) -> tuple[FrontEvent | None, OwnedFd | None] | None:
        """Returns the next event that has arrived, None if there is none.

        A job comes with its descriptor, which is the caller's to close. An event of unknown type
        is None. Raises FrontGone, ProtocolError, FieldError.
        """
        while (frame := self._decoder.next_frame()) is None:
            try:
                count, fds = fdsocket.receive_into(self._sock, self._buffer)
            except BlockingIOError:
                return None
            except OSError as error:
                raise FrontGone(str(error)) from None
            if count == 0:
                raise FrontGone("the front closed the connection")
            self._decoder.receive(self._buffer[:count], fds)
        return _unpack(frame)

    def close(self) -> None:
        self._decoder.close()
        self._sock.close()


def _encoded(event: WorkerEvent, fds: int = 0) -> bytes:
    message = frames.encode(event.TYPE, dump(event), fds=fds)
    if isinstance(event, Done) and len(message) > _ANSWER_MAX:
        text = f"the transcript takes {len(message)} bytes, over the limit of {_ANSWER_MAX}"
        return _encoded(Failed(event.key, Code.TOO_LARGE, text))
    return message


def _unpack(frame: frames.Frame) -> tuple[FrontEvent | None, OwnedFd | None]:
    try:
        event = parse_event(TO_WORKER, frame.type, frame.data)
        if not isinstance(event, StartJob):
            return event, None
        if len(frame.fds) != 1:
            raise ProtocolError("a job needs exactly one descriptor")
        # Raises FieldError for a size that PCM can't have.
        event.audio.seconds(event.size)
        return event, frame.fds.pop()
    finally:
        frame.close()
