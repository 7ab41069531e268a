"""One client's connection: its events become requests, and their outcomes become its answers."""

import contextlib
import logging
import math
import socket
from typing import Any

import anyio

from asrd.errors import BadRequest, Busy, Code, FieldError, JobError, ProtocolError
from asrd.front.front import Front
from asrd.front.reporting import snapshot
from asrd.front.request import Request, error, is_plain, make_request, with_hints
from asrd.front.scheduling.actions import Failure
from asrd.front.spool import ClientFile, SpooledAudio
from asrd.front.stream import DISCARD, STREAMED, Stream
from asrd.wire import client_events, frames
from asrd.wire.client_events import AudioChunk, Describe, Ping, StatusRequest, Transcribe
from asrd.wire.connection import Connection
from asrd.wire.fdsocket import EXHAUSTED
from asrd.wire.fields import dump, identifier, parse, parse_event
from asrd.wire.options import Options
from asrd.wire.peer import Peer
from asrd.wire.records import AudioFormat
from asrd.wire.worker_events import JobProgress

log = logging.getLogger(__name__)

# Seconds that a client has to read why its connection ends.
_LAST_ERROR_SECONDS = 1.0
# Seconds between two looks at a client that has closed its writing side (as `socat` does): it may
# have left altogether.
_HALF_CLOSED_SECONDS = 0.1
_GET_ID = identifier()


class Session:
    """`restricted`: on the public status socket, where transcribing and cancelling are refused."""

    def __init__(self, front: Front, peer: Peer, restricted: bool) -> None:
        self.peer = peer
        self._front = front
        self._restricted = restricted
        self._requests: dict[str, Request] = {}
        self._stream = Stream(self._new_recording)
        # Deadlines of the stream that is open: for its next chunk, and for the whole of it.
        self._pause_ends = self._stream_ends = math.inf
        self._connection: Connection | None = None
        self._conversation: anyio.CancelScope
        # The client has used a field that only asrd has, so it understands errors.
        self._knows_asrd = False
        # A plain request got an error; the connection ends because of it.
        self._got_error = self._leaving = False

    async def run(self, connection: Connection) -> None:
        """Serves the connection until its end, then cancels the requests without an answer."""
        self._connection = connection
        self._front.clients.add(self)
        try:
            await self._converse(connection)
            if self._leaving:
                await self._close_gently(connection)
        except ProtocolError as problem:
            await self._send_last_error(connection, Failure(Code.BAD_REQUEST, str(problem)))
        except Busy as problem:
            await self._send_last_error(connection, Failure(Code.BUSY, problem.text, None, 1000))
        except OSError as problem:
            # Any other one means that the client is gone.
            if problem.errno in EXHAUSTED:
                failure = Failure(Code.BUSY, str(problem.strerror), retry_after_ms=1000)
                await self._send_last_error(connection, failure)
        finally:
            self._connection = None
            self._front.clients.discard(self)
            self._stream.drop()
            for request in list(self._requests.values()):
                self._front.cancel(request, Failure(Code.CANCELLED, "the client disconnected"))

    async def _converse(self, connection: Connection) -> None:
        with anyio.CancelScope() as self._conversation:
            while not self._leaving and (frame := await self._next_frame(connection)) is not None:
                with contextlib.closing(frame):
                    if frame.type == Describe.TYPE:
                        began = anyio.current_time()
                        await self._front.models_known()
                        # This pause is ours, not the client's.
                        self._pause_ends += anyio.current_time() - began
                    self._handle(frame)
            while (self._requests or connection.unread) and connection.half_closed:
                await anyio.sleep(_HALF_CLOSED_SECONDS)

    async def _send_last_error(self, connection: Connection, failure: Failure) -> None:
        self._answer(error(failure))
        await connection.flush(_LAST_ERROR_SECONDS)

    async def _close_gently(self, connection: Connection) -> None:
        """Ends the sending side and discards what still arrives: closing at once could make the
        client's writes fail before it has read the error."""
        await connection.flush(_LAST_ERROR_SECONDS)
        connection.shutdown(socket.SHUT_WR)
        with anyio.move_on_after(self._front.settings.frame_timeout_seconds):
            while (frame := await connection.receive()) is not None:
                frame.close()

    def _leave_if_over(self, plain_error: bool = False) -> None:
        """Ends a plain conversation that got an error, once nothing else on it is unanswered."""
        self._got_error |= plain_error and not self._knows_asrd
        over = not self._requests and not self._stream.is_open
        if self._got_error and over and self._connection is not None:
            self._leaving = True
            self._conversation.cancel()

    async def _next_frame(self, connection: Connection) -> frames.Frame | None:
        """Receives the next event, and gives up a stream that takes too long."""
        if self._stream.is_open:
            with anyio.CancelScope(deadline=min(self._pause_ends, self._stream_ends)):
                return await connection.receive()
            # Within an event the connection's own timeout applies.
            if not connection.in_event:
                self._give_up_stream(AudioChunk.TYPE, self._overdue())
        return await connection.receive()

    def _overdue(self) -> Failure:
        settings = self._front.settings
        if anyio.current_time() >= self._stream_ends:
            text = f"audio: the stream took longer to arrive than {settings.max_audio_seconds:g} s"
            return Failure(Code.TOO_LARGE, text)
        pause = settings.frame_timeout_seconds
        text = f"no audio chunk arrived for {pause:g} s in the middle of a recording"
        return Failure(Code.BAD_REQUEST, text)

    def _extend_stream(self, begins: bool = False) -> None:
        """Only audio chunks reset the idle timer. The whole stream must arrive within
        `max_audio_seconds` plus one idle timeout."""
        settings = self._front.settings
        self._pause_ends = anyio.current_time() + settings.frame_timeout_seconds
        if begins:
            self._stream_ends = self._pause_ends + settings.max_audio_seconds

    def _new_recording(self) -> SpooledAudio:
        limit = self._front.settings.max_payload_bytes
        return SpooledAudio(self._front.spool, self.peer.user, limit)

    def open_sink(self, frame: frames.Frame) -> frames.Sink:
        """Returns the sink for the payload of an event that is arriving."""
        if not (self._restricted or self._leaving):
            if frame.type == Transcribe.TYPE:
                return self._new_recording()
            if frame.type == AudioChunk.TYPE:
                return self._stream.sink()
        return DISCARD

    # --- events of the client -------------------------------------------------------------------

    def _handle(self, frame: frames.Frame) -> None:
        sizes = frame.type, frame.payload_length, len(frame.fds)
        log.debug("< %s payload=%d fds=%d", *sizes, extra={"fields": self.peer.log_fields})
        try:
            event = parse_event(client_events.FROM_CLIENT, frame.type, frame.data)
            if event is None:
                self._front.metrics.ignored_events += 1
                return
            if self._restricted and not isinstance(event, Describe | Ping | StatusRequest):
                raise BadRequest("this socket answers status, ping and describe")
            self._dispatch(event, frame)
        except FieldError as problem:
            self._refuse(frame, Failure(Code.BAD_REQUEST, f"{frame.type}: {problem}"))
        except JobError as problem:
            text = f"{frame.type}: {problem.text}"
            failure = Failure(problem.code, text, retry_after_ms=problem.retry_after_ms)
            self._refuse(frame, failure)

    def _dispatch(self, event: Any, frame: frames.Frame) -> None:
        match event:
            case Transcribe():
                self._transcribe(event, frame)
            case client_events.AudioStart():
                self._stream.start(event)
                self._extend_stream(begins=True)
            case AudioChunk():
                self._stream.chunk(event)
                self._extend_stream()
            case client_events.AudioStop():
                recorded = self._stream.stop()
                if recorded is not None:
                    self._request(*recorded)
                    self._stream.accepted()
            case client_events.Cancel(job_id):
                failure = Failure(Code.CANCELLED, "the client cancelled the job")
                if not self.cancel(job_id, failure):
                    count = self._front.cancel_foreign(self.peer, job_id)
                    self._answer(client_events.CancelAnswer(job_id, count))
            case Describe():
                self._send("info", snapshot.info(self._front))
            case Ping():
                self._answer(client_events.Pong(event.text))
            case StatusRequest():
                self._status(event)

    def _status(self, event: StatusRequest) -> None:
        answer = snapshot.snapshot(self._front, self.peer, anyio.current_time())
        if event.crashes:
            crashes = self._front.crashes
            answer["crashes"] = [crash.as_data(self.peer, self._restricted) for crash in crashes]
        self._send("status", answer)

    def _transcribe(self, transcribe: Transcribe, frame: frames.Frame) -> None:
        self._knows_asrd |= not is_plain(transcribe)
        options = with_hints(transcribe, parse(Options, frame.data))
        if transcribe.audio is not None:
            self._request(transcribe, options, transcribe.audio, self._take_audio(frame))
        elif frame.fds or frame.payload is not None:
            raise FieldError("audio", "is missing, but there is a payload or a descriptor")
        else:
            self._stream.announce(transcribe, options)

    def _take_audio(self, frame: frames.Frame) -> SpooledAudio | ClientFile:
        """Moves the audio out of the event."""
        match frame.fds, frame.payload:
            case [_], None:
                return ClientFile(frame.fds.pop(), self._front.settings.max_file_bytes)
            case [], SpooledAudio() as recording:
                frame.payload = None
                return recording
        raise FieldError("audio", "needs either a payload or exactly one descriptor")

    def _request(
        self,
        transcribe: Transcribe,
        options: Options,
        format_: AudioFormat,
        audio: SpooledAudio | ClientFile,
    ) -> None:
        """Checks a request and submits it. Takes `audio` over. Raises FieldError, JobError."""
        try:
            if transcribe.job_id in self._requests:
                text = f"{transcribe.job_id!r} names an unanswered job of this connection already"
                raise FieldError("job_id", text)
            if isinstance(audio, SpooledAudio):
                audio.seal()
            if is_plain(transcribe) and not audio.size:
                # As wyoming-faster-whisper does: pressing a button too briefly is no error.
                self._answer(client_events.Transcript("", language=options.language))
                audio.close()
                return
            limit = self._front.settings.max_audio_seconds
            now = anyio.current_time()
            request = make_request(self, transcribe, options, format_, audio, now, limit)
        except BaseException:
            audio.close()
            raise
        self._submit(request)

    def _submit(self, request: Request) -> None:
        limit = self._front.settings.jobs_max_per_connection
        full = len(self._requests) >= limit
        self._requests[request.job_id] = request
        if full:
            self._front.refuse(request, f"{limit} jobs of this connection are unanswered")
        else:
            self._front.submit(request)

    # --- answers ----------------------------------------------------------------------------------

    def accepted(self, request: Request, queue_depth: int) -> None:
        if not request.plain:
            self._answer(client_events.Accepted(request.job_id, queue_depth))

    def segment(self, request: Request, index: int, segment: dict[str, Any]) -> None:
        # Passed on as it is: the client's library checks a segment.
        ids = {"job_id": request.job_id, "index": index, "attempt": request.job.attempts}
        self._send(client_events.SegmentDecoded.TYPE, {**ids, "segment": segment})

    def progress(self, request: Request, event: JobProgress) -> None:
        if request.stream:
            done, length = event.audio_seconds_done, event.audio_seconds
            self._answer(client_events.Progress(request.job_id, done, length))

    def finished(self, request: Request, transcript: bytes) -> None:
        self._requests.pop(request.job_id, None)
        self._send(client_events.Transcript.TYPE, transcript)
        self._leave_if_over()

    def failed(self, request: Request, failure: Failure) -> None:
        self._requests.pop(request.job_id, None)
        self._answer(error(failure, request.job_id, request.trace_id))
        self._leave_if_over(request.plain)

    def cancel(self, job_id: str, failure: Failure) -> bool:
        """Ends the request with this id, also while its audio arrives. Returns False if there is
        none."""
        if job_id in self._requests:
            self._front.cancel(self._requests[job_id], failure)
            return True
        transcribe = self._stream.cancel(job_id)
        if transcribe is not None:
            self._refused(failure, transcribe.job_id, transcribe.trace_id)
        return transcribe is not None

    def _refuse(self, frame: frames.Frame, failure: Failure) -> None:
        """Refuses an event. The answer names its job if the event has a valid id."""
        if frame.type in STREAMED and not self._restricted:
            self._give_up_stream(frame.type, failure)
            return
        plain = False
        if frame.type == Transcribe.TYPE and _asks_for_stream(frame) and not self._restricted:
            self._stream.refuse()
            plain = not (frame.data.get("job_id") or frame.data.get("stream"))
        self._refused(failure, _id(frame, "job_id"), _id(frame, "trace_id"), plain)

    def _give_up_stream(self, kind: str, failure: Failure) -> None:
        transcribe = self._stream.give_up(kind)
        if transcribe is not None:
            self._refused(failure, transcribe.job_id, transcribe.trace_id, is_plain(transcribe))

    def _refused(
        self, failure: Failure, job_id: str | None, trace_id: str | None, plain: bool = False
    ) -> None:
        self._front.count_refusal(self.peer, failure)
        self._answer(error(failure, job_id, trace_id))
        self._leave_if_over(plain)

    def _answer(self, event: client_events.AnswerEvent) -> None:
        self._send(event.TYPE, dump(event))

    def _send(self, kind: str, data: dict[str, Any] | bytes) -> None:
        if self._connection is not None:
            log.debug("> %s", kind, extra={"fields": self.peer.log_fields})
            self._connection.send(kind, data)


def _id(frame: frames.Frame, key: str) -> str | None:
    """Returns an id that an answer may repeat: an invalid one would make the answer malformed."""
    try:
        value: str = _GET_ID(key, frame.data.get(key))
    except FieldError:
        return None
    return value


def _asks_for_stream(frame: frames.Frame) -> bool:
    bare = frame.payload_length == 0 and not frame.fds
    return bare and frame.data.get("audio") is None
