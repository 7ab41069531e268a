"""One client's connection: its events become requests, and their outcomes become its answers."""

import contextlib
import logging
import math
import socket
from functools import partial
from typing import Any

import anyio

from asrd.errors import BadRequest, Busy, Code, FieldError, JobError, ProtocolError
from asrd.front.doors import Door
from asrd.front.front import Front
from asrd.front.live.stream import LiveStream, record, with_job_id
from asrd.front.live.text import LiveText
from asrd.front.refused import asks_for_stream, id_in, looks_plain
from asrd.front.reporting import snapshot
from asrd.front.request import (
    Request,
    error,
    is_plain,
    make_request,
    why_refused,
    with_hints,
)
from asrd.front.scheduling.actions import Failure
from asrd.front.spool import ClientFile, SpooledAudio
from asrd.front.stream import DISCARD, REPLACED, STREAMED, Recorded, Stream
from asrd.wire import client_events, frames
from asrd.wire.client_events import AudioChunk, Describe, SelectProgram, StatusRequest, Transcribe
from asrd.wire.connection import Connection
from asrd.wire.fdsocket import EXHAUSTED
from asrd.wire.fields import dump, parse, parse_event
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


class Session:
    def __init__(self, front: Front, peer: Peer, door: Door) -> None:
        self.peer = peer
        self._front = front
        self.door = door
        self.max_audio_seconds = door.max_audio_seconds
        self.requests: dict[str, Request] = {}
        self.stream = Stream(partial(record, front, self, self._new_recording))
        # Deadlines of the stream that is open: for its next chunk, and for the whole of it.
        self.pause_ends = self.stream_ends = math.inf
        self.connection: Connection | None = None
        self._conversation: anyio.CancelScope
        # The client has used a field that only asrd has, so it understands errors.
        self.knows_asrd = False
        # A plain request got an error; the connection ends because of it.
        self.got_error = self.leaving = False
        # A `describe` waits for its answer.
        self.describing = False

    async def run(self, connection: Connection) -> None:
        """Serves the connection until its end, then cancels the requests without an answer."""
        self.connection = connection
        self._front.clients.add(self)
        try:
            await self._converse(connection)
            if self.leaving:
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
            self.connection = None
            self._front.clients.discard(self)
            left = Failure(Code.CANCELLED, "the client disconnected")
            self.stream.drop(left)
            for request in list(self.requests.values()):
                self._front.cancel(request, left)

    async def _converse(self, connection: Connection) -> None:
        with anyio.CancelScope() as self._conversation:
            if self.describing:
                await self._describe(connection)
            while not self.leaving and (frame := await self._next_frame(connection)) is not None:
                with contextlib.closing(frame):
                    self._handle(frame)
                if self.describing:
                    await self._describe(connection)
            while (self.requests or connection.unread) and connection.half_closed:
                await anyio.sleep(_HALF_CLOSED_SECONDS)

    async def _describe(self, connection: Connection) -> None:
        began = anyio.current_time()
        connection.keep()
        await self._front.announcements.wait()
        # This pause is ours, not the client's.
        self.pause_ends += anyio.current_time() - began
        self.describing = False
        self.send("info", snapshot.info(self._front))

    async def _send_last_error(self, connection: Connection, failure: Failure) -> None:
        self._answer(error(failure))
        self.leaving = True
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
        self.got_error |= plain_error and not self.knows_asrd
        over = not self.requests and not self.stream.is_open
        if self.got_error and over and self.connection is not None:
            self.leaving = True
            self._conversation.cancel()

    async def _next_frame(self, connection: Connection) -> frames.Frame | None:
        """Receives the next event, and gives up a stream that takes too long."""
        if self.stream.is_open:
            with anyio.CancelScope(deadline=min(self.pause_ends, self.stream_ends)):
                return await connection.receive()
            # Within an event the connection's own timeout applies.
            if not connection.in_event:
                self._give_up_stream(AudioChunk.TYPE, self._overdue())
        return await connection.receive()

    def _overdue(self) -> Failure:
        if anyio.current_time() >= self.stream_ends:
            limit = self.door.max_audio_seconds
            text = f"audio: the stream took longer to arrive than {limit:g} s"
            return Failure(Code.TOO_LARGE, text)
        pause = self._front.settings.frame_timeout_seconds
        text = f"no audio chunk arrived for {pause:g} s in the middle of a recording"
        return Failure(Code.BAD_REQUEST, text)

    def _extend_stream(self, begins: bool = False) -> None:
        """Only audio chunks reset the idle timer. The whole stream must arrive within
        `max_audio_seconds` plus one idle timeout."""
        self.pause_ends = anyio.current_time() + self._front.settings.frame_timeout_seconds
        if begins:
            self.stream_ends = self.pause_ends + self.door.max_audio_seconds

    def _new_recording(self) -> SpooledAudio:
        return SpooledAudio(self.door.spool, self.peer.user, self.door.limits.payload)

    def open_sink(self, frame: frames.Frame) -> frames.Sink:
        """Returns the sink for the payload of an event that is arriving."""
        if not (self.door.public or self.leaving):
            if frame.type == Transcribe.TYPE:
                return self._new_recording()
            if frame.type == AudioChunk.TYPE:
                return self.stream.sink()
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
            refused = self.door.why_refused(event)
            if refused is not None:
                raise BadRequest(refused)
            self._dispatch(event, frame)
        except (FieldError, JobError) as problem:
            self._refuse(frame, why_refused(frame.type, problem))

    def _dispatch(self, event: Any, frame: frames.Frame) -> None:
        match event:
            case Transcribe():
                self._transcribe(event, frame)
            case client_events.AudioStart():
                if self.stream.knows_errors:
                    self.stream_failed(REPLACED)
                self.stream.start(event)
                self._extend_stream(begins=True)
            case AudioChunk():
                self.stream.chunk(event)
                self._extend_stream()
            case client_events.AudioStop():
                self._request_stream(self.stream.stop())
            case client_events.Cancel(job_id):
                failure = Failure(Code.CANCELLED, "the client cancelled the job")
                if not self.cancel(job_id, failure):
                    alone = self.door.strangers
                    count = 0 if alone else self._front.cancel_foreign(self.peer, job_id)
                    self._answer(client_events.CancelAnswer(job_id, count))
            case Describe():
                self.describing = True
            case SelectProgram(name):
                if name != snapshot.PROGRAM:
                    raise FieldError("name", f"must be {snapshot.PROGRAM}, the only program here")
            case client_events.Ping(text):
                self._answer(client_events.Pong(text))
            case StatusRequest():
                self._status(event)

    def _status(self, event: StatusRequest) -> None:
        now = anyio.current_time()
        self.send("status", snapshot.answer(event, self._front, self.peer, self.door.public, now))

    def _transcribe(self, transcribe: Transcribe, frame: frames.Frame) -> None:
        self.knows_asrd |= not is_plain(transcribe)
        may_speak = not self.door.strangers and self._front.gateways.may_speak(self.peer)
        if transcribe.user is not None and not may_speak:
            raise FieldError("user", "may be named by a gateway only (setting `gateways`)")
        options = with_hints(transcribe, parse(Options, frame.data))
        transcribe = with_job_id(transcribe)
        if transcribe.audio is not None:
            self._request(transcribe, options, transcribe.audio, self._take_audio(frame))
        elif frame.fds or frame.payload is not None:
            raise FieldError("audio", "is missing, but there is a payload or a descriptor")
        else:
            self.stream.announce(transcribe, options)

    def _take_audio(self, frame: frames.Frame) -> SpooledAudio | ClientFile:
        """Moves the audio out of the event."""
        match frame.fds, frame.payload:
            case [_], None:
                return ClientFile(frame.fds.pop(), self._front.settings.max_file_bytes)
            case [], SpooledAudio() as recording:
                frame.payload = None
                return recording
        raise FieldError("audio", "needs either a payload or exactly one descriptor")

    def _request_stream(self, recorded: Recorded | None) -> None:
        """A stream that has ended becomes a request. Raises FieldError, JobError."""
        if recorded is not None:
            transcribe, options, format_, audio = recorded
            text = None
            if isinstance(audio, LiveStream):
                options, audio, text = audio.stop()
            self._request(transcribe, options, format_, audio, text)
            self.stream.accepted()

    def _request(
        self,
        transcribe: Transcribe,
        options: Options,
        format_: AudioFormat,
        audio: SpooledAudio | ClientFile,
        text: LiveText | None = None,
    ) -> None:
        """Checks a request and submits it. Takes `audio` and `text` over. Raises FieldError,
        JobError."""
        try:
            self.check_job_id(transcribe.job_id)
            if isinstance(audio, SpooledAudio):
                audio.seal()
            if is_plain(transcribe) and not audio.size:
                # As wyoming-faster-whisper does: pressing a button too briefly is no error.
                self._answer(client_events.Transcript("", language=options.language))
                audio.close()
                if text is not None:
                    text.stop()
                return
            now, limit = anyio.current_time(), self.max_audio_seconds
            request = make_request(self, transcribe, options, format_, audio, now, limit, text)
        except BaseException:
            audio.close()
            if text is not None:
                text.close()
            raise
        if text is not None:
            text.fail = partial(self._front.cancel, request)
        self._submit(request)

    def check_job_id(self, job_id: str | None) -> None:
        """Raises FieldError if an unanswered job or live stream has it."""
        if job_id is not None and (job_id in self.requests or job_id == self.stream.live_id):
            problem = f"{job_id!r} names an unanswered job of this connection already"
            raise FieldError("job_id", problem)

    def _submit(self, request: Request) -> None:
        limit = self._front.settings.jobs_max_per_connection
        full = len(self.requests) >= limit
        self.requests[request.job_id] = request
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
        self.send(client_events.SegmentDecoded.TYPE, {**ids, "segment": segment})

    def progress(self, request: Request, event: JobProgress) -> None:
        if request.stream:
            done, length = event.audio_seconds_done, event.audio_seconds
            self._answer(client_events.Progress(request.job_id, done, length))

    def finished(self, request: Request, transcript: bytes) -> None:
        self.requests.pop(request.job_id, None)
        self.send(client_events.Transcript.TYPE, transcript)
        if request.text is not None:
            request.text.stop()
        self._leave_if_over()

    def failed(self, request: Request, failure: Failure) -> None:
        self.requests.pop(request.job_id, None)
        self._answer(error(failure, request.job_id, request.trace_id))
        self._leave_if_over(request.plain)

    def cancel(self, job_id: str, failure: Failure) -> bool:
        """Ends the request with this id, also while its audio arrives. Returns False if there is
        none."""
        if job_id in self.requests:
            self._front.cancel(self.requests[job_id], failure)
            return True
        live = self.stream.is_live
        transcribe = self.stream.cancel(job_id, failure)
        if transcribe is not None:
            counted = live and not self.stream.is_live
            self._refused(failure, transcribe.job_id, transcribe.trace_id, counted=counted)
        return transcribe is not None

    def _refuse(self, frame: frames.Frame, failure: Failure) -> None:
        """Refuses an event. The answer names its job if the event has a valid id."""
        if frame.type in STREAMED and not self.door.public:
            self._give_up_stream(frame.type, failure)
            return
        plain = False
        if frame.type == Transcribe.TYPE and asks_for_stream(frame) and not self.door.public:
            self.stream.refuse()
            plain = looks_plain(frame)
        self._refused(failure, id_in(frame, "job_id"), id_in(frame, "trace_id"), plain)

    def _give_up_stream(self, kind: str, failure: Failure) -> None:
        live = self.stream.is_live
        transcribe = self.stream.give_up(kind, failure)
        if transcribe is not None:
            ids = transcribe.job_id, transcribe.trace_id
            self._refused(failure, *ids, is_plain(transcribe), counted=live)

    def speech_ended(self) -> None:
        """A live stream ends before its audio-stop."""
        try:
            self._request_stream(self.stream.stop())
            self.stream.skip()
        except (FieldError, JobError) as problem:
            self.stream_failed(why_refused(client_events.AudioStop.TYPE, problem))

    def stream_failed(self, failure: Failure) -> None:
        """A step of a live stream failed, another stream replaces it, or the daemon stops."""
        self._give_up_stream(AudioChunk.TYPE, failure)

    def _refused(
        self,
        failure: Failure,
        job_id: str | None,
        trace_id: str | None,
        plain: bool = False,
        counted: bool = False,
    ) -> None:
        """`counted`: as a live stream that failed."""
        if not counted:
            self._front.count_refusal(self.peer, failure)
        self._answer(error(failure, job_id, trace_id))
        self._leave_if_over(plain)

    def _answer(self, event: client_events.AnswerEvent) -> None:
        self.send(event.TYPE, dump(event))

    def send(self, kind: str, data: dict[str, Any] | bytes) -> None:
        if self.connection is not None:
            log.debug("> %s", kind, extra={"fields": self.peer.log_fields})
            self.connection.send(kind, data)
