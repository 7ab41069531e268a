"""Live text: a Wyoming stream to the daemon, and what it hears meanwhile.

The stream has a connection of its own, since nothing in a chunk says which stream it belongs to;
closing that cancels the job. The daemon answers in order: if its `pong` comes before the
`transcript-start`, it does not know live text.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import anyio

from asrd.client.asyncconnection import AsyncConnection, AsyncStream, Entered
from asrd.client.attempts import GRACE_SECONDS, LiveOptions, live_request
from asrd.client.conversation import ANSWER_SECONDS, Call, silent
from asrd.client.threads import read_in_thread
from asrd.errors import BadRequest, DeadlineExceeded
from asrd.wire.client_events import (
    AudioChunk,
    AudioStart,
    AudioStop,
    Ping,
    Transcribe,
    Transcript,
    TranscriptChunk,
    TranscriptStart,
)
from asrd.wire.fields import dump

Chunks = AsyncIterable[bytes] | Iterable[bytes]

# The most samples of each channel in one audio-chunk.
_PIECE_FRAMES = 1 << 14


class AsyncLiveStream(AsyncStream):
    """An asynchronous iterator of one live stream's TranscriptChunk; see AsyncClient.live.

    Closing the stream early, or dropping it, cancels the job. A stream belongs to the process that
    made it: in a forked child, iteration raises RuntimeError, and closing has no effect on the job.
    """

    def __init__(self, here: Callable[[], Entered], chunks: Chunks, options: LiveOptions) -> None:
        self._connection: AsyncConnection | None = None
        self._call: Call | None = None
        self._transcript: Transcript | None = None
        # Until it can be closed.
        self._closed = True
        self._here = here
        self._request, start = live_request(options)
        self._sender = _Sender(chunks, start, self._request.get("timeout_ms"))
        super().__init__()
        self._closed = False

    @property
    def job_id(self) -> str:
        job_id: str = self._request["job_id"]
        return job_id

    @property
    def transcript(self) -> Transcript:
        """The transcript, after the last text. Raises RuntimeError before it."""
        if self._transcript is None:
            raise RuntimeError("the transcript is available after the last text")
        return self._transcript

    def close(self) -> None:
        if self._closed or self.inherited:
            return
        self._closed = True
        self._sender.scope.cancel()
        if self._connection is not None:
            self._connection.close()

    def leave(self) -> None:
        """The connection closes its own descriptor."""

    async def __anext__(self) -> TranscriptChunk:
        self.refuse_if_inherited()
        try:
            while not self._closed:
                match await self._next_answer():
                    case TranscriptChunk() as chunk:
                        return chunk
                    case Transcript() as transcript:
                        self._transcript = transcript
                        self.close()
        except BaseException:
            self.close()
            raise
        raise StopAsyncIteration

    async def _next_answer(self) -> Any:
        if self._connection is None or self._call is None:
            entered = self._here()
            try:
                with anyio.fail_after(ANSWER_SECONDS):
                    self._connection = await entered.connect()
                    self._call = await self._begin(self._connection, self._sender.start)
            except TimeoutError:
                raise silent(entered.path, ANSWER_SECONDS) from None
            entered.tasks.start_soon(self._sender.run, self._connection, self._call)
        return await self._connection.next_answer(self._call)

    async def _begin(self, connection: AsyncConnection, start: AudioStart) -> Call:
        call = connection.open(Transcribe.TYPE, self._request)
        await connection.send_audio(AudioStart.TYPE, dump(start))
        await connection.next_answer(connection.open(Ping.TYPE, {}))
        if not isinstance(call.take(), TranscriptStart):
            raise BadRequest("live: the daemon is too old for live text: update asrd")
        return call


class _Sender:
    """The task that sends the audio. It has no reference to the stream, which may be dropped."""

    def __init__(self, chunks: Chunks, start: AudioStart, timeout_ms: int | None) -> None:
        self.start = start
        self.scope = anyio.CancelScope()
        self._chunks = chunks
        self._timeout_ms = timeout_ms
        self._frame_bytes = start.width * start.channels
        self._piece_bytes = _PIECE_FRAMES * self._frame_bytes

    async def run(self, connection: AsyncConnection, call: Call) -> None:
        with self.scope:
            try:
                await self._send(connection)
                await self._wait(call)
            except Exception as error:
                call.put(error, last=True)

    async def _send(self, connection: AsyncConnection) -> None:
        """An incomplete frame at the end is left out."""
        format_ = dump(self.start)
        rest = b""
        async with aclosing(_asynchronous(self._chunks)) as chunks:
            async for chunk in chunks:
                audio = rest + _checked(chunk)
                whole = len(audio) // self._frame_bytes * self._frame_bytes
                for begin in range(0, whole, self._piece_bytes):
                    piece = audio[begin : min(begin + self._piece_bytes, whole)]
                    await connection.send_audio(AudioChunk.TYPE, format_, piece)
                rest = audio[whole:]
        await connection.send_audio(AudioStop.TYPE, {})

    async def _wait(self, call: Call) -> None:
        """Ends the stream of a daemon that does not keep the timeout itself."""
        if self._timeout_ms is not None:
            await anyio.sleep(self._timeout_ms / 1000 + GRACE_SECONDS)
            text = f"no answer within {self._timeout_ms / 1000:g} s of the end of the audio"
            call.put(DeadlineExceeded(text, job_id=call.job_id), last=True)


def _checked(chunk: object) -> bytes:
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise TypeError(f"chunks must be bytes of 16-bit samples, not {type(chunk).__name__}")
    return bytes(chunk)


async def _asynchronous(chunks: Chunks) -> AsyncGenerator[object, None]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
        return
    async with aclosing(read_in_thread(chunks)) as read:
        async for chunk in read:
            yield chunk
