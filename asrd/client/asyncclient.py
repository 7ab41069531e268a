"""The asynchronous client: `AsyncClient`, for asyncio and trio (anyio).

    async with AsyncClient() as client:
        transcript = await client.transcribe("talk.mp3", language="en")

All jobs of all tasks share one connection; `client` tells what both clients have in common.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Any, Unpack

import anyio
import anyio.abc
import anyio.to_thread

from asrd import wiretrace
from asrd.client.attempts import Attempts, JobOptions
from asrd.client.client import ANSWER_SECONDS
from asrd.client.connect import BACKLOG_PAUSE, connect, socket_path
from asrd.client.conversation import (
    Answer,
    AnswerDecoder,
    Call,
    Conversation,
    garbage,
    lost,
    silent,
)
from asrd.client.forking import OfOneProcess
from asrd.client.source import Audio, Source, open_source
from asrd.errors import AsrdError, ConnectionLost, ProtocolError
from asrd.wire import fdsocket
from asrd.wire.client_events import CancelAnswer, Transcript
from asrd.wire.connection import Connection
from asrd.wire.records import Segment

__all__ = ["AsyncClient", "AsyncSegmentStream"]

# Requests that the daemon has not read yet: thousands of them, then the connection is given up.
_OUTPUT_MAX = 4 << 20


class AsyncClient:
    """One daemon, reached through `socket`, else ASRD_SOCKET, else the system's or the user's own.

    Works inside `async with` only: that is where its tasks live. Any number of tasks may call it
    at once. Connects when it must, also after the daemon was restarted. A forked child, like a
    copy (also a pickled one), has to enter it by an `async with` of its own.
    """

    def __init__(self, socket: str | None = None) -> None:
        self.socket = socket_path(socket)
        self._entered: _Entered | None = None

    def __repr__(self) -> str:
        return f"<AsyncClient {self.socket} {self._entered and self._entered.shared!r}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_entered": None}

    async def transcribe(self, audio: Audio, **options: Unpack[JobOptions]) -> Transcript:
        """The whole transcript; takes and raises what `Client.transcribe` does.

        Cancelling the calling task cancels the job.
        """
        async with AsyncSegmentStream(self, audio, options, stream=False) as stream:
            async for _ in stream:
                pass
            return stream.transcript

    def stream(self, audio: Audio, **options: Unpack[JobOptions]) -> "AsyncSegmentStream":
        """The segments as they are decoded; takes and raises what `Client.transcribe` does."""
        return AsyncSegmentStream(self, audio, options, stream=True)

    async def status(self, *, crashes: bool = False) -> dict[str, Any]:
        """The daemon's snapshot (docs/protocol.md), with the last `crashes` of its workers if they
        are asked for. Raises ConnectionLost, ProtocolError."""
        status: dict[str, Any] = await self._ask("status", "status", {"crashes": crashes})
        return status

    async def describe(self) -> dict[str, Any]:
        """Wyoming's `info`: all models, loaded or not. Raises ConnectionLost, ProtocolError."""
        info: dict[str, Any] = await self._ask("describe", "info")
        return info

    async def ping(self) -> float:
        """Seconds to the answer and back. Raises ConnectionLost, ProtocolError."""
        start = anyio.current_time()
        await self._ask("ping", "pong")
        return anyio.current_time() - start

    async def cancel(self, job_id: str) -> int:
        """End a job of whichever connection: how many jobs that ended.

        Raises ConnectionLost, ProtocolError.
        """
        with self._in_time():
            # On the shared connection the answer would be the job's own.
            link = await self._here().open_link()
            try:
                call = link.open("cancel", {"job_id": job_id}, "cancelled", job_id)
                answer = await link.next_answer(call)
            finally:
                link.close()
        return answer.jobs if isinstance(answer, CancelAnswer) else 0

    async def __aenter__(self) -> "AsyncClient":
        self._entered = _Entered(self.socket, await anyio.create_task_group().__aenter__())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        entered, self._entered = self._entered, None
        # The tasks of a forked child are only copies: they belong to the parent's event loop.
        if entered is not None and not entered.inherited:
            entered.tasks.cancel_scope.cancel()
            # Not told of the body's exception, which would come out wrapped in a group.
            await entered.tasks.__aexit__(None, None, None)

    async def _ask(self, kind: str, expects: str, data: dict[str, Any] | None = None) -> Any:
        with self._in_time():
            link = await self._link()
            return await link.next_answer(link.open(kind, data or {}, expects))

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                yield
        except TimeoutError:
            raise silent(self.socket, ANSWER_SECONDS) from None

    async def _link(self) -> "_Link":
        return await self._here().link()

    def _here(self) -> "_Entered":
        if self._entered is None or self._entered.inherited:
            raise RuntimeError(
                "AsyncClient works inside 'async with AsyncClient() as client' of the same process"
            )
        return self._entered


class _Entered(OfOneProcess):
    """An `async with` of a client: its tasks, and the connection that its calls share."""

    def __init__(self, path: str, tasks: anyio.abc.TaskGroup) -> None:
        self.tasks = tasks
        self.shared: _Link | None = None
        self._path = path
        self._connecting = anyio.Lock()
        super().__init__()

    def leave(self) -> None:
        self.shared = None

    async def link(self) -> "_Link":
        """The shared connection, opened anew if it has ended."""
        async with self._connecting:
            if self.shared is None or self.shared.ended:
                self.shared = await self.open_link()
            return self.shared

    async def open_link(self) -> "_Link":
        while (sock := connect(self._path)) is None:
            # The kernel has no event for "there is room again".
            await anyio.sleep(BACKLOG_PAUSE)
        link = _Link(sock, self._path, self.tasks)
        self.tasks.start_soon(link.run)
        return link


class AsyncSegmentStream(OfOneProcess):
    """An asynchronous iterator of one job's segments; `transcript` once it has ended.

    Closing it early, or dropping it, cancels the job. A forked child can do neither, nor iterate.
    """

    def __init__(
        self, client: AsyncClient, audio: Audio, options: JobOptions, *, stream: bool
    ) -> None:
        # One at most. A list, since its `pop` can't give the same source to two threads.
        self._sources: list[Source] = []
        self._link: _Link | None = None
        self._call: Call | None = None
        self._closed = False
        self._client = client
        self._audio = audio
        self._attempts = Attempts(options, anyio.current_time(), stream=stream)
        super().__init__()

    @property
    def job_id(self) -> str:
        return self._attempts.job_id

    @property
    def transcript(self) -> Transcript:
        """Raises RuntimeError as long as the segments have not ended."""
        return self._attempts.result()

    def close(self) -> None:
        self._closed = True
        self._drop_call()
        self._close_source()

    def leave(self) -> None:
        self._close_source()

    async def aclose(self) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Segment]:
        return self

    async def __anext__(self) -> Segment:
        try:
            while True:
                self.refuse_if_inherited()
                if (segment := self._attempts.next_segment()) is not None:
                    return segment
                if self._closed or self._attempts.transcript is not None:
                    raise StopAsyncIteration
                await self._step()
        except BaseException:
            self.close()
            raise

    async def __aenter__(self) -> "AsyncSegmentStream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    async def _step(self) -> None:
        """One wait: for the next answer to this attempt, which begins with it if it must."""
        if not self._sources:
            # In a thread, since a path may lie on a slow disk, or be a pipe.
            await anyio.to_thread.run_sync(self._open_source)
        limit = self._attempts.limit
        try:
            with anyio.fail_after(None if limit is None else limit - anyio.current_time()):
                answer = await self._next_answer(self._sources[0])
        except TimeoutError:
            raise self._attempts.overdue() from None
        except AsrdError as error:
            self._drop_call()
            self._attempts.failed(error, anyio.current_time())
        else:
            self._attempts.take(answer)

    async def _next_answer(self, source: Source) -> Answer:
        if self._link is None or self._call is None:
            await anyio.sleep(self._attempts.pause)
            self._link = await self._client._link()
            request = self._attempts.request(source.format, anyio.current_time())
            self._call = self._link.open(
                "transcribe", request, "transcript", self.job_id, [source.fd.fileno()]
            )
        return await self._link.next_answer(self._call)

    def _open_source(self) -> None:
        self._sources.append(open_source(self._audio, self._attempts.hint))
        if self._closed:
            # asyncio's own `Task.cancel` does not wait for the thread.
            self._close_source()

    def _close_source(self) -> None:
        with contextlib.suppress(IndexError):
            self._sources.pop().close()

    def _drop_call(self) -> None:
        if self._link is not None and self._call is not None:
            self._link.abandon(self._call)
        self._link = self._call = None


class _Link(OfOneProcess):
    """One connection and the task that reads it."""

    def __init__(self, sock: socket.socket, path: str, tasks: anyio.abc.TaskGroup) -> None:
        self._path = path
        self._sock = sock
        self._conversation = Conversation()
        buffer = memoryview(bytearray(fdsocket.READ_SIZE))
        self._channel = Connection(sock, AnswerDecoder(), tasks, buffer, output_max=_OUTPUT_MAX)
        super().__init__()

    def __repr__(self) -> str:
        return repr(self._conversation)

    @property
    def ended(self) -> bool:
        return self.inherited or self._conversation.error is not None

    def open(
        self,
        kind: str,
        data: dict[str, Any],
        expects: str,
        job_id: str | None = None,
        fds: Sequence[int] = (),
    ) -> Call:
        call = self._conversation.open(expects, job_id)
        wiretrace.sent(kind, data, len(fds))
        self._channel.send(kind, data, fds)
        return call

    async def next_answer(self, call: Call) -> Answer:
        """Raises JobError, ConnectionLost, ProtocolError."""
        while (answer := call.take()) is None:
            woken = anyio.Event()
            call.wake = woken.set
            await woken.wait()
        return answer

    def abandon(self, call: Call) -> None:
        """Nobody waits for the job's answer any more; no harm if it is there."""
        if not call.over and not self.ended:
            self._channel.send("cancel", {"job_id": call.job_id})

    def close(self) -> None:
        self._channel.shutdown()

    def leave(self) -> None:
        # The socket first: a channel that has one tells the event loop, which is the parent's.
        self._sock.close()
        self._channel.close()

    async def run(self) -> None:
        """Reads until the connection ends, and tells every open call why."""
        error: AsrdError = ConnectionLost("the client was closed")
        try:
            while not self.ended and (event := await self._channel.receive()) is not None:
                wiretrace.received(event)
                self._conversation.receive(event)
            error = lost(self._path)
        except ProtocolError as problem:
            error = garbage(self._path, problem)
        except OSError as problem:
            error = lost(self._path, problem)
        finally:
            if not self.inherited:
                self._conversation.fail(error)
                # A mere `close` would end nothing while a forked process has a copy.
                self._channel.shutdown()
                self._channel.close()
