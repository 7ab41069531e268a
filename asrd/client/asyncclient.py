"""The asynchronous client: `AsyncClient`, for asyncio and trio (anyio).

    async with AsyncClient() as client:
        transcript = await client.transcribe("talk.mp3", language="en")

The jobs of all tasks share one connection. asrd.client.client names the parts that both clients
share.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any, Unpack

import anyio
import anyio.abc
import anyio.to_thread

from asrd.client.attempts import Attempts, JobOptions, cancel_request
from asrd.client.connect import BACKLOG_PAUSE, connect, socket_path
from asrd.client.conversation import (
    ANSWER_SECONDS,
    Answer,
    AnswerDecoder,
    Call,
    Conversation,
    silent,
)
from asrd.client.forking import OfOneProcess
from asrd.client.jobs import Jobs
from asrd.client.source import Audio, Source, open_source
from asrd.errors import AsrdError, ConnectionLost, ProtocolError
from asrd.wire import fdsocket
from asrd.wire.client_events import Transcript
from asrd.wire.connection import Connection
from asrd.wire.records import Segment

# Thousands of requests that the daemon has not read yet. Above it, the connection is given up.
_OUTPUT_MAX = 4 << 20


class AsyncClient:
    """An asynchronous client of one daemon. Works inside `async with`, which runs its tasks.

    Any number of tasks of one event loop may use a client: refused calls wait while the daemon
    makes progress on the others (asrd.client.attempts). It connects when a call needs it, also
    after a restart of the daemon. A copy, a pickled copy, and a client in a forked child need an
    `async with` of their own. Cancelling the task that waits for a transcript cancels the job.

    Every method raises ConnectionLost if the daemon can't be reached or does not answer,
    ProtocolError if the answer is not asrd's protocol, and RuntimeError outside `async with`.

    Args:
        socket: the path of the daemon's socket; see Client.
    """

    def __init__(self, socket: str | None = None) -> None:
        self.socket = socket_path(socket)
        self._entered: _Entered | None = None
        self._jobs = Jobs()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.socket} {self._entered and self._entered.shared!r}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_entered": None, "_jobs": Jobs()}

    async def transcribe(self, audio: Audio, **options: Unpack[JobOptions]) -> Transcript:
        """Transcribes a recording and waits for the whole transcript.

        Args and Raises: see Client.transcribe. ValueError for the `job_id` of a job that this
        client is still waiting for.
        """
        async with AsyncSegmentStream(self, audio, options, stream=False) as stream:
            async for _ in stream:
                pass
            return stream.transcript

    def stream(self, audio: Audio, **options: Unpack[JobOptions]) -> "AsyncSegmentStream":
        """Returns an asynchronous iterator of the segments as they are decoded, each once.

        Args and Raises: see `transcribe`. Wrong options raise here, all else in the iteration.
        """
        return AsyncSegmentStream(self, audio, options, stream=True)

    async def status(self, *, crashes: bool = False) -> dict[str, Any]:
        """Returns the daemon's snapshot (the `status` event of docs/protocol.md).

        Args:
            crashes: adds the last crashes of the workers.
        """
        status: dict[str, Any] = await self._ask("status", {"crashes": crashes})
        return status

    async def describe(self) -> dict[str, Any]:
        """Returns Wyoming's `info`: all models, loaded or not."""
        info: dict[str, Any] = await self._ask("describe", {})
        return info

    async def ping(self) -> float:
        """Returns the round-trip time in seconds."""
        start = anyio.current_time()
        await self._ask("ping", {})
        return anyio.current_time() - start

    async def cancel(self, job_id: str) -> int:
        """Cancels the jobs with this id, of any connection of this user, and returns how many it
        ended. Raises BadRequest for a text that is no id."""
        # On the shared connection the answer would be the job's own.
        answer = await self._ask("cancel", cancel_request(job_id), alone=True)
        return getattr(answer, "jobs", 0)

    async def __aenter__(self) -> "AsyncClient":
        self._entered = _Entered(self.socket, await anyio.create_task_group().__aenter__())
        return self

    async def __aexit__(self, *_: object) -> None:
        entered, self._entered = self._entered, None
        # The tasks of a forked child are only copies: they belong to the parent's event loop.
        if entered is not None and not entered.inherited:
            entered.tasks.cancel_scope.cancel()
            # Without the body's exception, which would come out wrapped in a group.
            await entered.tasks.__aexit__(None, None, None)

    async def _ask(self, kind: str, data: dict[str, Any], *, alone: bool = False) -> Any:
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                entered = self._here()
                connection = await (entered.connect() if alone else entered.connection())
                try:
                    return await connection.next_answer(connection.open(kind, data))
                finally:
                    if alone:
                        connection.close()
        except TimeoutError:
            raise silent(self.socket, ANSWER_SECONDS) from None

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
        self.shared: _AsyncConnection | None = None
        self._path = path
        self._connecting = anyio.Lock()
        super().__init__()

    def leave(self) -> None:
        self.shared = None

    async def connection(self) -> "_AsyncConnection":
        """Returns the shared connection, a new one if it has ended."""
        async with self._connecting:
            if self.shared is None or self.shared.ended:
                self.shared = await self.connect()
            return self.shared

    async def connect(self) -> "_AsyncConnection":
        while (sock := connect(self._path)) is None:
            # The kernel has no event for "there is room again".
            await anyio.sleep(BACKLOG_PAUSE)
        connection = _AsyncConnection(sock, self._path, self.tasks)
        self.tasks.start_soon(connection.run)
        return connection


class AsyncSegmentStream(OfOneProcess):
    """An asynchronous iterator of one job's segments.

    Closing the stream early, or dropping it, cancels the job. A stream belongs to the process that
    made it: in a forked child, iteration raises RuntimeError, and closing has no effect on the job.
    """

    def __init__(
        self, client: AsyncClient, audio: Audio, options: JobOptions, *, stream: bool
    ) -> None:
        # At most one. A list, since its `pop` can't give the same source to two threads.
        self._sources: list[Source] = []
        self._connection: _AsyncConnection | None = None
        self._call: Call | None = None
        self._closed = False
        self._woken = anyio.Event()
        self._client = client
        self._audio = audio
        self._attempts = Attempts(options, anyio.current_time(), client._jobs, stream=stream)
        super().__init__()

    @property
    def job_id(self) -> str:
        return self._attempts.job_id

    @property
    def transcript(self) -> Transcript:
        """The transcript, after the last segment. Raises RuntimeError before it."""
        return self._attempts.result()

    def close(self) -> None:
        self._closed = True
        self._drop_call()
        if self._sources:
            self._attempts.end()
            self.leave()

    def leave(self) -> None:
        with contextlib.suppress(IndexError):
            self._sources.pop().fd.close()
            self._attempts.leave()

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

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    async def _step(self) -> None:
        """Begins the next attempt if there is none under way, and waits for one answer."""
        if not self._sources:
            # In a thread, since a path may be on a slow disk, or a pipe.
            await anyio.to_thread.run_sync(self._open_source)
        limit = self._attempts.limit
        try:
            with anyio.fail_after(None if limit is None else limit - anyio.current_time()):
                answer = await self._next_answer(self._sources[0])
        except (AsrdError, TimeoutError) as error:
            self._drop_call()
            self._woken = anyio.Event()
            self._attempts.wake_by(self._woken.set)
            self._attempts.failed(error, anyio.current_time())
        else:
            self._attempts.take(answer, anyio.current_time())

    async def _next_answer(self, source: Source) -> Answer:
        if self._connection is None or self._call is None:
            with anyio.move_on_after(self._attempts.pause):
                await self._woken.wait()
            self._connection = await self._client._here().connection()
            request = self._attempts.request(source.format, anyio.current_time())
            self._call = self._connection.open("transcribe", request, [source.fd.fileno()])
        return await self._connection.next_answer(self._call)

    def _open_source(self) -> None:
        self._sources.append(open_source(self._audio, self._attempts.hint))
        if self._closed:
            # asyncio's own `Task.cancel` does not wait for the thread.
            self.leave()

    def _drop_call(self) -> None:
        if self._connection is not None and self._call is not None:
            self._connection.abandon(self._call)
        self._connection = self._call = None


class _AsyncConnection(OfOneProcess):
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
