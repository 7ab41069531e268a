"""The connections of an AsyncClient, and the tasks that read them."""

import copy
import socket
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import anyio
import anyio.abc

from asrd.client.connect import BACKLOG_PAUSE, connect
from asrd.client.conversation import (
    ANSWER_SECONDS,
    Answer,
    AnswerDecoder,
    Call,
    Conversation,
    silent,
)
from asrd.client.forking import OfOneProcess
from asrd.errors import ConnectionLost, ProtocolError
from asrd.wire import fdsocket
from asrd.wire.connection import Connection

# Thousands of requests that the daemon has not read yet. Above it, the connection is given up.
_OUTPUT_MAX = 4 << 20


class Entered(OfOneProcess):
    """An `async with` of a client: its tasks, and the connection that its calls share."""

    def __init__(self, path: str, tasks: anyio.abc.TaskGroup) -> None:
        self.path = path
        self.tasks = tasks
        self.shared: AsyncConnection | None = None
        self._connecting = anyio.Lock()
        super().__init__()

    def leave(self) -> None:
        self.shared = None

    async def connection(self) -> "AsyncConnection":
        """Returns the shared connection, a new one if it has ended."""
        async with self._connecting:
            if self.shared is None or self.shared.ended:
                self.shared = await self.connect()
            return self.shared

    async def connect(self) -> "AsyncConnection":
        while (sock := connect(self.path)) is None:
            # The kernel has no event for "there is room again".
            await anyio.sleep(BACKLOG_PAUSE)
        connection = AsyncConnection(sock, self.path, self.tasks)
        self.tasks.start_soon(connection.run)
        return connection


class AsyncStream(OfOneProcess):
    """A base class of iterators: leaving the `async with`, or dropping the stream, closes it."""

    @abstractmethod
    def close(self) -> None: ...

    async def aclose(self) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncConnection(OfOneProcess):
    """A connection for any number of calls, and the task that reads it. Owns the socket."""

    def __init__(self, sock: socket.socket, path: str, tasks: anyio.abc.TaskGroup) -> None:
        self._sock = sock
        self._conversation = Conversation(path)
        buffer = memoryview(bytearray(fdsocket.READ_SIZE))
        self._wire = Connection(sock, AnswerDecoder(), tasks, buffer, output_max=_OUTPUT_MAX)
        super().__init__()

    def __repr__(self) -> str:
        return repr(self._conversation)

    @property
    def ended(self) -> bool:
        return self.inherited or self._conversation.error is not None

    def open(self, kind: str, data: dict[str, Any], fds: Sequence[int] = ()) -> Call:
        call = self._conversation.open(kind, data, len(fds))
        self._wire.send(kind, data, fds)
        return call

    async def send_audio(self, kind: str, data: dict[str, Any], payload: bytes = b"") -> None:
        """Sends an event of a Wyoming stream, and waits until the daemon has taken it.

        Raises ConnectionLost, ProtocolError.
        """
        self._wire.send(kind, data, payload=payload)
        await self._wire.flush(ANSWER_SECONDS)
        if self._conversation.error is not None:
            raise copy.copy(self._conversation.error)
        if self._wire.unread:
            raise silent(self._conversation.path, ANSWER_SECONDS)

    async def next_answer(self, call: Call) -> Answer:
        """Raises JobError, ConnectionLost, ProtocolError."""
        while (answer := call.take()) is None:
            woken = anyio.Event()
            call.wake = woken.set
            await woken.wait()
        return answer

    def abandon(self, call: Call) -> None:
        """Cancels the call's job, unless it is over."""
        if not call.over and not self.ended:
            self._wire.send("cancel", {"job_id": call.job_id})

    def close(self) -> None:
        self._wire.shutdown()

    def leave(self) -> None:
        # The socket first: before `Connection` closes an open one, it notifies the event loop,
        # which is the parent's.
        self._sock.close()
        self._wire.close()

    async def run(self) -> None:
        """Reads until the connection ends, then ends the conversation."""
        try:
            while not self.ended and (frame := await self._wire.receive()) is not None:
                self._conversation.receive(frame)
            self._conversation.end(None)
        except (OSError, ProtocolError) as error:
            self._conversation.end(error)
        finally:
            if not self.inherited:
                self._conversation.fail(ConnectionLost("the client was closed"))
                # `close` alone ends nothing while a forked process has a copy of the descriptor.
                self._wire.shutdown()
                self._wire.close()
