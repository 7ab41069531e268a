"""The blocking client: `Client`. Needs neither anyio nor numpy.

    with Client() as client:
        print(client.transcribe("talk.mp3", language="en").text)

The parts without I/O are shared with `AsyncClient`: `conversation` (one connection), `attempts`
(one job over all its attempts) and `jobs` (those of one client, which wait for each other). This
file sends, receives and waits.
"""

import contextlib
import queue
import socket
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Unpack

from asrd.client.attempts import BUSY_TIMEOUT_SECONDS, Attempts, JobOptions, cancel_request
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
from asrd.wire import fdsocket, frames
from asrd.wire.client_events import Transcript
from asrd.wire.fds import Closing
from asrd.wire.records import Segment

_IDLE_MAX = 4


class Client(Closing):
    """A blocking client of one daemon. Use it as a context manager, or call `close`.

    Threads may share a client: each call has a connection of its own, kept for the next call, and
    refused calls wait while the daemon makes progress on the others (asrd.client.attempts). It
    connects when a call needs it, also after a restart of the daemon. A client works in a forked
    child and can be copied and pickled: each process and each copy has connections of its own.

    Every method but `close` raises ConnectionLost if the daemon can't be reached or does not
    answer, and ProtocolError if the answer is not asrd's protocol.

    Args:
        socket: the path of the daemon's socket. Default: ASRD_SOCKET, else the system's socket if
            this user may use it, else that of the user's own `asrd run`.
        busy_timeout: how long a call without a timeout waits for the daemon to accept its job, in
            seconds after the last progress on another; with 0, `busy` raises at once.
    """

    def __init__(
        self, socket: str | None = None, *, busy_timeout: float = BUSY_TIMEOUT_SECONDS
    ) -> None:
        self._idle: list[_BlockingConnection] = []
        self._jobs = Jobs()
        self.busy_timeout = busy_timeout
        self._closed = False
        self.socket = socket_path(socket)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_idle": [], "_jobs": Jobs(), "_closed": False}

    def __repr__(self) -> str:
        return f"<Client {self.socket} idle={len(self._idle)}>"

    def transcribe(self, audio: Audio, **options: Unpack[JobOptions]) -> Transcript:
        """Transcribes a recording and waits for the whole transcript.

        Args:
            audio: a path, a binary file object, bytes (a media file, or PCM with `encoding`), or
                an array of numbers, shape (n,) or (n, channels): floats from -1 to 1, or integers
                of any size, by their full scale.
            options: see JobOptions.

        Raises:
            JobError: the daemon's answer is an error; there is a subclass for each code.
            OSError: the file can't be read.
            TypeError: `audio` or an option is none of the above.
        """
        with SegmentStream(self, audio, options, stream=False) as stream:
            for _ in stream:
                pass
            return stream.transcript

    def stream(self, audio: Audio, **options: Unpack[JobOptions]) -> "SegmentStream":
        """Returns an iterator of the segments as they are decoded, each once.

        Args and Raises: see `transcribe`. The daemon's errors raise in the iteration.
        """
        return SegmentStream(self, audio, options, stream=True)

    def status(
        self, *, crashes: bool = False, jobs: bool = False, timeout: float = ANSWER_SECONDS
    ) -> dict[str, Any]:
        """Returns the daemon's snapshot (the `status` event of docs/protocol.md).

        Args:
            crashes: adds the last crashes of the workers.
            jobs: adds the jobs that this user may see, one by one.
            timeout: in seconds, as in the following methods.
        """
        status: dict[str, Any] = self._ask("status", {"crashes": crashes, "jobs": jobs}, timeout)
        return status

    def describe(self, *, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """Returns Wyoming's `info`: all models, loaded or not."""
        info: dict[str, Any] = self._ask("describe", {}, timeout)
        return info

    def ping(self, *, timeout: float = ANSWER_SECONDS) -> float:
        """Returns the round-trip time in seconds."""
        start = time.monotonic()
        self._ask("ping", {}, timeout)
        return time.monotonic() - start

    def cancel(self, job_id: str, *, timeout: float = ANSWER_SECONDS) -> int:
        """Cancels the jobs with this id, of any connection of this user, and returns how many it
        ended. May be called from any thread. Raises BadRequest for a text that is no id."""
        return getattr(self._ask("cancel", cancel_request(job_id), timeout), "jobs", 0)

    def close(self) -> None:
        """Closes the idle connections. Calls of other threads are not disturbed."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        # Nobody closes a copy that was passed to another process. Without `_idle`, the arguments
        # were wrong.
        if hasattr(self, "_idle"):
            self.close()

    def _ask(self, kind: str, data: dict[str, Any], timeout: float) -> Any:
        until = time.monotonic() + timeout
        try:
            connection = self._acquire(until)
            try:
                connection.open(kind, data, until)
                return connection.next_answer(until)
            finally:
                self._release(connection)
        except TimeoutError:
            raise silent(self.socket, timeout) from None

    def _acquire(self, until: float | None) -> "_BlockingConnection":
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet():
                return connection
            connection.close()
        while (sock := connect(self.socket)) is None:
            _time_left(until)
            time.sleep(BACKLOG_PAUSE)
        return _BlockingConnection(sock, self.socket)

    def _release(self, connection: "_BlockingConnection") -> None:
        if connection.reusable and not self._closed and len(self._idle) < _IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.close()


class SegmentStream(OfOneProcess, Closing):
    """An iterator of one job's segments.

    Closing the stream early, or dropping it, cancels the job. A stream belongs to the process that
    made it: in a forked child, iteration raises RuntimeError, and closing has no effect on the job.
    """

    def __init__(self, client: Client, audio: Audio, options: JobOptions, *, stream: bool) -> None:
        self._connection: _BlockingConnection | None = None
        self._source: Source | None = None
        self._client = client
        self._attempts = Attempts(
            options, time.monotonic(), client._jobs, stream=stream, busy_timeout=client.busy_timeout
        )
        # Unlike an Event's, its `put` may be called from `__del__` and from a signal handler.
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._attempts.wake_by(partial(self._woken.put, None))
        self._source = open_source(audio, self._attempts.hint)
        super().__init__()

    @property
    def job_id(self) -> str:
        return self._attempts.job_id

    @property
    def transcript(self) -> Transcript:
        """The transcript, after the last segment. Raises RuntimeError before it."""
        return self._attempts.result()

    def close(self) -> None:
        self._give_back()
        if self._source is not None:
            self._attempts.end()
            self.leave()

    def leave(self) -> None:
        if self._source is not None:
            self._source.fd.close()
            self._source = None
            self._attempts.leave()

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

    def _step(self, source: Source) -> None:
        """Begins the next attempt if there is none under way, and waits for one answer."""
        limit = self._attempts.limit
        try:
            if self._connection is None:
                if self._attempts.pause:
                    with contextlib.suppress(queue.Empty):
                        self._woken.get(timeout=self._attempts.pause)
                self._connection = self._client._acquire(limit)
                request = self._attempts.request(source.format, time.monotonic())
                self._connection.open("transcribe", request, limit, [source.fd.fileno()])
            answer = self._connection.next_answer(limit)
        except (AsrdError, TimeoutError) as error:
            self._give_back()
            self._attempts.failed(error, time.monotonic())
        else:
            self._attempts.take(answer, time.monotonic())

    def _give_back(self) -> None:
        # The client closes a connection whose answer is still due: that cancels the job.
        if self._connection is not None:
            self._client._release(self._connection)
            self._connection = None


class _BlockingConnection(OfOneProcess):
    """A connection for one call at a time. Owns the socket.

    `until` is a time of the monotonic clock, or None; after it, methods raise TimeoutError.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self._sock = sock
        self._decoder = AnswerDecoder()
        self._conversation = Conversation(path)
        self._buffer = memoryview(bytearray(fdsocket.READ_SIZE))
        self._call: Call
        super().__init__()

    @property
    def reusable(self) -> bool:
        return not self.inherited and self._conversation.idle and not self._decoder.in_frame

    def quiet(self) -> bool:
        """Returns True if the daemon has neither hung up nor sent anything since the last call."""
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
        self, kind: str, data: dict[str, Any], until: float | None, fds: Sequence[int] = ()
    ) -> None:
        self._call = self._conversation.open(kind, data, len(fds))
        rest = memoryview(frames.encode(kind, data, fds=len(fds)))
        try:
            while rest:
                self._sock.settimeout(_time_left(until))
                rest = rest[fdsocket.send(self._sock, [rest], fds) :]
                fds = ()
        except TimeoutError:
            raise
        except OSError:
            # The daemon has hung up. The answers that it sent before can still be read.
            self._hang_up()

    def next_answer(self, until: float | None) -> Answer:
        """Raises JobError, ConnectionLost, ProtocolError, TimeoutError."""
        while (answer := self._call.take()) is None:
            self._sock.settimeout(_time_left(until))
            try:
                self._read()
            except TimeoutError:
                raise
            except (OSError, ProtocolError) as error:
                self._conversation.end(error)
        return answer

    def _read(self) -> None:
        count, fds = fdsocket.receive_into(self._sock, self._buffer)
        self._decoder.receive(self._buffer[:count], fds)
        while (frame := self._decoder.next_frame()) is not None:
            self._conversation.receive(frame)
        if count == 0:
            self._conversation.end(None)

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # `close` alone ends nothing while a forked process has a copy of the descriptor.
        if not self.inherited:
            self._hang_up()
        self._sock.close()
        self._decoder.close()

    def leave(self) -> None:
        self._sock.close()
        # If the fork was in the middle of a call (in a signal handler), the call ends here.
        path = self._conversation.path
        self._conversation.fail(ConnectionLost(f"the connection to {path} is the parent's"))


def _time_left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
