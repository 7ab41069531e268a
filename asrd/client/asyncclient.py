"""The asynchronous client: `AsyncClient`, for asyncio and trio (anyio).

    async with AsyncClient() as client:
        transcript = await client.transcribe("talk.mp3", language="en")

The jobs of all tasks share one connection. asrd.client.client names the parts that both clients
share.
"""

import contextlib
from typing import Any, Unpack

import anyio
import anyio.to_thread

from asrd.client.asyncconnection import AsyncConnection, AsyncStream, Entered
from asrd.client.attempts import (
    BUSY_TIMEOUT_SECONDS,
    Attempts,
    JobOptions,
    LiveOptions,
    cancel_request,
)
from asrd.client.connect import socket_path
from asrd.client.conversation import ANSWER_SECONDS, Answer, Call, silent
from asrd.client.jobs import Jobs
from asrd.client.live import AsyncLiveStream, Chunks
from asrd.client.source import Audio, Source, open_source
from asrd.errors import AsrdError
from asrd.wire.client_events import Transcript
from asrd.wire.records import Segment


class AsyncClient:
    """An asynchronous client of one daemon. Works inside `async with`, which runs its tasks.

    Any number of tasks of one event loop may use a client: refused calls wait while the daemon
    makes progress on the others (asrd.client.attempts). It connects when a call needs it, also
    after a restart of the daemon. A copy, a pickled copy, and a client in a forked child need an
    `async with` of their own. Cancelling the task that waits for a transcript cancels the job.

    Every method raises ConnectionLost if the daemon can't be reached or does not answer,
    ProtocolError if the answer is not asrd's protocol, and RuntimeError outside `async with`.

    Args:
        socket, busy_timeout: see Client.
    """

    def __init__(
        self, socket: str | None = None, *, busy_timeout: float = BUSY_TIMEOUT_SECONDS
    ) -> None:
        self.socket = socket_path(socket)
        self._entered: Entered | None = None
        self._jobs = Jobs()
        self.busy_timeout = busy_timeout

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

    def live(self, chunks: Chunks, **options: Unpack[LiveOptions]) -> AsyncLiveStream:
        """Returns an asynchronous iterator of the text of audio that is still arriving.

        It yields a TranscriptChunk whenever something has changed: `text` is new and final, said
        between `start` and `end` (seconds), or empty; `pending` is the text behind it, which may
        still change, or None. `transcript` has the whole, after the last one.

        The stream has a connection of its own. It is not submitted again: its audio is gone.

        Args:
            chunks: an asynchronous or plain iterable of bytes: 16-bit little-endian samples, which
                end when it ends. A plain one is read in a thread, since it may block.
            options: see LiveOptions.

        Raises: see Client.transcribe, at once for wrong options, all else in the iteration; also
            BadRequest if the daemon is too old, TypeError for chunks that are not bytes, and what
            `chunks` raises.
        """
        return AsyncLiveStream(self._here, chunks, options)

    async def status(self, *, crashes: bool = False, jobs: bool = False) -> dict[str, Any]:
        """Returns the daemon's snapshot (the `status` event of docs/protocol.md).

        Args:
            crashes: adds the last crashes of the workers.
            jobs: adds the jobs that this user may see, one by one.
        """
        status: dict[str, Any] = await self._ask("status", {"crashes": crashes, "jobs": jobs})
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
        self._entered = Entered(self.socket, await anyio.create_task_group().__aenter__())
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

    def _here(self) -> "Entered":
        if self._entered is None or self._entered.inherited:
            raise RuntimeError(
                "AsyncClient works inside 'async with AsyncClient() as client' of the same process"
            )
        return self._entered


class AsyncSegmentStream(AsyncStream):
    """An asynchronous iterator of one job's segments.

    Closing the stream early, or dropping it, cancels the job. A stream belongs to the process that
    made it: in a forked child, iteration raises RuntimeError, and closing has no effect on the job.
    """

    def __init__(
        self, client: AsyncClient, audio: Audio, options: JobOptions, *, stream: bool
    ) -> None:
        # At most one. A list, since its `pop` can't give the same source to two threads.
        self._sources: list[Source] = []
        self._connection: AsyncConnection | None = None
        self._call: Call | None = None
        self._closed = False
        self._woken = anyio.Event()
        self._client = client
        self._audio = audio
        self._attempts = Attempts(
            options,
            anyio.current_time(),
            client._jobs,
            stream=stream,
            busy_timeout=client.busy_timeout,
        )
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
