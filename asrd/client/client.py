"""The blocking client: `Client`. Needs neither anyio nor numpy.

    with Client() as client:
        print(client.transcribe("talk.mp3", language="en").text)

What both clients share has no I/O and lies in `conversation` (one connection) and `attempts`
(one job over all its attempts); what is here sends, receives and waits.
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

from asrd import wiretrace
from asrd.client.attempts import Attempts, JobOptions
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
from asrd.wire import fdsocket, frames
from asrd.wire.client_events import CancelAnswer, Transcript
from asrd.wire.fds import Closing
from asrd.wire.records import Segment

__all__ = ["Client", "SegmentStream"]

# The daemon answers such questions in a few milliseconds, whatever its workers do.
ANSWER_SECONDS = 10.0
_IDLE_MAX = 4


class Client(Closing):
    """One daemon, reached through `socket`, else ASRD_SOCKET, else the system's or the user's own.

    Threads may share a client: each call has a connection of its own, kept for the next one.
    Connects when it must, also after the daemon was restarted. Works in a forked child, too, and
    can be copied and pickled: each process and each copy has connections of its own.
    """

    def __init__(self, socket: str | None = None) -> None:
        self._idle: list[_Connection] = []
        self._closed = False
        self.socket = socket_path(socket)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_idle": [], "_closed": False}

    def __repr__(self) -> str:
        return f"<Client {self.socket} idle={len(self._idle)}>"

    def transcribe(self, audio: Audio, **options: Unpack[JobOptions]) -> Transcript:
        """The whole transcript of `audio`: a path, a binary file object, bytes (a media file, or
        PCM if `encoding` says so), or an array of numbers, shape (n,) or (n, channels).

        Raises JobError (a subclass by code), ConnectionLost, ProtocolError; OSError and TypeError
        for what can't be read.
        """
        with SegmentStream(self, audio, options, stream=False) as stream:
            for _ in stream:
                pass
            return stream.transcript

    def stream(self, audio: Audio, **options: Unpack[JobOptions]) -> "SegmentStream":
        """The segments of `audio` as they are decoded; takes and raises what `transcribe` does."""
        return SegmentStream(self, audio, options, stream=True)

    def status(self, *, crashes: bool = False, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The daemon's snapshot (docs/protocol.md), with the last `crashes` of its workers if they
        are asked for. Raises ConnectionLost, ProtocolError."""
        status: dict[str, Any] = self._ask("status", {"crashes": crashes}, "status", timeout)
        return status

    def describe(self, *, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Wyoming's `info`: all models, loaded or not. Raises ConnectionLost, ProtocolError."""
        info: dict[str, Any] = self._ask("describe", {}, "info", timeout)
        return info

    def ping(self, *, timeout: float = ANSWER_SECONDS) -> float:
        """Seconds to the answer and back. Raises ConnectionLost, ProtocolError."""
        start = time.monotonic()
        self._ask("ping", {}, "pong", timeout)
        return time.monotonic() - start

    def cancel(self, job_id: str, *, timeout: float = ANSWER_SECONDS) -> int:
        """End a job of whichever connection, from whichever thread: how many jobs that ended.

        Raises ConnectionLost, ProtocolError.
        """
        answer: CancelAnswer = self._ask("cancel", {"job_id": job_id}, "cancelled", timeout)
        return answer.jobs

    def close(self) -> None:
        """Calls that other threads have under way are not disturbed."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        # A copy that was passed to another process has nobody who would close it.
        self.close()

    def _ask(self, kind: str, data: dict[str, Any], expects: str, timeout: float) -> Any:
        until = time.monotonic() + timeout
        try:
            connection = self._acquire(until)
            try:
                call = connection.open(kind, data, expects, data.get("job_id"), until)
                return connection.next_answer(call, until)
            finally:
                self._release(connection)
        except TimeoutError:
            raise silent(self.socket, timeout) from None

    def _acquire(self, until: float | None) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet():
                return connection
            connection.close()
        while (sock := connect(self.socket)) is None:
            _time_left(until)
            time.sleep(BACKLOG_PAUSE)
        return _Connection(sock, self.socket)

    def _release(self, connection: "_Connection") -> None:
        if connection.reusable and not self._closed and len(self._idle) < _IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.close()


class SegmentStream(OfOneProcess, Closing):
    """An iterator of one job's segments; `transcript` once it has ended.

    Closing it early, or dropping it, cancels the job. A forked child can do neither, nor iterate.
    """

    def __init__(self, client: Client, audio: Audio, options: JobOptions, *, stream: bool) -> None:
        self._connection: _Connection | None = None
        self._call: Call | None = None
        self._source: Source | None = None
        self._client = client
        self._attempts = Attempts(options, time.monotonic(), stream=stream)
        self._source = open_source(audio, self._attempts.hint)
        super().__init__()

    @property
    def job_id(self) -> str:
        return self._attempts.job_id

    @property
    def transcript(self) -> Transcript:
        """Raises RuntimeError as long as the segments have not ended."""
        return self._attempts.result()

    def close(self) -> None:
        # A connection that still owes the answer is closed: hanging up is what cancels a job.
        self._give_back()
        self._close_source()

    def leave(self) -> None:
        self._close_source()

    def __iter__(self) -> Iterator[Segment]:
        return self

    def __next__(self) -> Segment:
        try:
            while True:
                self.refuse_if_inherited()
                if (segment := self._attempts.next_segment()) is not None:
                    return segment
                if self._source is None or self._attempts.transcript is not None:
                    raise StopIteration
                self._step(self._source)
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _step(self, source: Source) -> None:
        """One wait: for the next answer to this attempt, which begins with it if it must."""
        try:
            answer = self._next_answer(source)
        except TimeoutError:
            raise self._attempts.overdue() from None
        except AsrdError as error:
            self._give_back()
            self._attempts.failed(error, time.monotonic())
        else:
            self._attempts.take(answer)

    def _next_answer(self, source: Source) -> Answer:
        limit = self._attempts.limit
        if self._connection is None or self._call is None:
            # Even a sleep of nothing gives the processor away.
            if self._attempts.pause:
                time.sleep(self._attempts.pause)
            self._connection = self._client._acquire(limit)
            request = self._attempts.request(source.format, time.monotonic())
            self._call = self._connection.open(
                "transcribe", request, "transcript", self.job_id, limit, [source.fd.fileno()]
            )
        return self._connection.next_answer(self._call, limit)

    def _give_back(self) -> None:
        if self._connection is not None:
            self._client._release(self._connection)
            self._connection = self._call = None


class _Connection(OfOneProcess):
    """One blocking connection, for one call at a time; owns the socket.

    `until` is a time of the monotonic clock, None for no limit; past it, TimeoutError.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self._sock = sock
        self._path = path
        self._decoder = AnswerDecoder()
        self._conversation = Conversation()
        self._buffer = memoryview(bytearray(fdsocket.READ_SIZE))
        super().__init__()

    @property
    def reusable(self) -> bool:
        return not self.inherited and self._conversation.idle and not self._decoder.in_frame

    def quiet(self) -> bool:
        """Whether the daemon has neither hung up nor said anything since the last call."""
        if self.inherited:
            return False
        self._sock.settimeout(0)
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def open(
        self,
        kind: str,
        data: dict[str, Any],
        expects: str,
        job_id: str | None,
        until: float | None,
        fds: Sequence[int] = (),
    ) -> Call:
        call = self._conversation.open(expects, job_id)
        wiretrace.sent(kind, data, len(fds))
        rest = memoryview(frames.encode(kind, data, fds=len(fds)))
        try:
            while rest:
                self._sock.settimeout(_time_left(until))
                rest = rest[fdsocket.send(self._sock, [rest], fds) :]
                fds = ()
        except TimeoutError:
            raise
        except OSError:
            # The daemon has hung up; what it said before that can still be read, then the end.
            self._hang_up()
        return call

    def next_answer(self, call: Call, until: float | None) -> Answer:
        """Raises JobError, ConnectionLost, ProtocolError, TimeoutError."""
        while (answer := call.take()) is None:
            self._sock.settimeout(_time_left(until))
            try:
                self._read()
            except TimeoutError:
                raise
            except OSError as error:
                self._conversation.fail(lost(self._path, error))
        return answer

    def _read(self) -> None:
        try:
            count, fds = fdsocket.receive_into(self._sock, self._buffer)
            self._decoder.receive(self._buffer[:count], fds)
            while (event := self._decoder.next_frame()) is not None:
                wiretrace.received(event)
                self._conversation.receive(event)
        except ProtocolError as error:
            self._conversation.fail(garbage(self._path, error))
        else:
            if count == 0:
                self._conversation.fail(lost(self._path))

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # A mere `close` would end nothing while a process forked from this one has a copy.
        if not self.inherited:
            self._hang_up()
        self._sock.close()
        self._decoder.close()

    def leave(self) -> None:
        self._sock.close()
        # For a call of this very thread, which forked in the middle of it (a signal handler).
        self._conversation.fail(ConnectionLost(f"the connection to {self._path} is the parent's"))


def _time_left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
