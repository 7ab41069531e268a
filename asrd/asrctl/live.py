"""`asrctl transcribe --live`: the text of a microphone or of a pipe, while it is spoken.

The first Ctrl-C ends the audio, and the rest of the text still comes; the second one ends the
program.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import anyio

from asrd.asrctl.live_source import LiveSource
from asrd.asrctl.live_view import LiveView
from asrd.asrctl.progress import can_redraw, terminal_columns
from asrd.asrctl.streams import hint, show
from asrd.client.asyncclient import AsyncClient
from asrd.client.attempts import LiveOptions
from asrd.client.threads import read_in_thread
from asrd.formats import Writer
from asrd.wire.client_events import Transcript, TranscriptChunk
from asrd.wire.records import Segment


def hear(
    socket: str | None,
    source: LiveSource,
    options: LiveOptions,
    on_chunk: Callable[[TranscriptChunk], object],
) -> Transcript:
    """Transcribes the source while it is read. Raises what AsyncClient.live raises, and
    KeyboardInterrupt after the second Ctrl-C."""
    try:
        return asyncio.run(_hear(socket, source, options, on_chunk))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _hear(
    socket: str | None,
    source: LiveSource,
    options: LiveOptions,
    on_chunk: Callable[[TranscriptChunk], object],
) -> Transcript:
    audio = _Audio(source, asyncio.current_task())
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, audio.stop)
    options = {**options, "sample_rate": source.rate, "channels": source.channels}
    async with AsyncClient(socket) as client, client.live(audio.chunks(), **options) as stream:
        async for chunk in stream:
            on_chunk(chunk)
        return stream.transcript


class _Audio:
    """The chunks of a source, until `stop`; a second `stop` cancels the task."""

    def __init__(self, source: LiveSource, task: "asyncio.Task[Transcript] | None") -> None:
        self._source = source
        self._task = task
        self._stopped = False
        self._reading = anyio.CancelScope()

    def stop(self) -> None:
        if self._stopped and self._task is not None:
            self._task.cancel()
        self._stopped = True
        self._reading.cancel()

    async def chunks(self) -> AsyncIterator[bytes]:
        async with aclosing(read_in_thread(iter(self._source.read, b""))) as pieces:
            while not self._stopped:
                piece = b""
                with anyio.CancelScope() as self._reading:
                    piece = await anext(pieces, b"")
                if not piece:
                    return
                yield piece


class Shown:
    """The place of the text: `at_once` on stdout in the writer's format, or for a person there.
    Otherwise stdout gets the finished transcript (or a file does), and a terminal on stderr shows
    the text meanwhile, unless `quiet`."""

    def __init__(self, writer: Writer, *, at_once: bool, flows: bool, quiet: bool) -> None:
        self._writer = writer
        self._header = writer.header
        self._count = 0
        self.at_once = at_once
        self._view: LiveView | None = None
        if at_once and flows and can_redraw(sys.stdout):
            self._view = LiveView(show, lambda: terminal_columns(sys.stdout))
        elif not at_once and not quiet and can_redraw(sys.stderr):
            self._view = LiveView(hint, lambda: terminal_columns(sys.stderr))

    def update(self, chunk: TranscriptChunk) -> None:
        if self._view is not None:
            self._view.update(chunk)
        elif self.at_once and chunk.text:
            self._count += 1
            segment = Segment(self._count, chunk.start or 0, chunk.end or 0, chunk.text)
            show(self._header + self._writer.segment(segment))
            self._header = ""

    def finish(self, transcript: Transcript) -> None:
        """Writes what stdout has not got yet."""
        self.end()
        if not self.at_once:
            show(self._writer.whole(transcript))
        elif self._view is None:
            show(self._header + self._writer.end(transcript))

    def end(self) -> None:
        if self._view is not None:
            self._view.end()
