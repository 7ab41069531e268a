"""One client's connection: its events become requests, their outcomes become its answers."""

import math
import socket
from typing import TYPE_CHECKING, Any

import anyio

from asrd.errors import BadAudio, BadRequest, Busy, Code, FieldError, JobError, ProtocolError
from asrd.front.request import Request, error, is_plain, nothing_said, with_hints
from asrd.front.scheduling.actions import Failure
from asrd.front.spool import ClientFile, JobAudio, SpooledAudio
from asrd.front.stream import STREAMED, Recorded, Stream
from asrd.wire import frames
from asrd.wire.client_events import (
    FROM_CLIENT,
    Accepted,
    AudioChunk,
    AudioStart,
    AudioStop,
    Cancel,
    CancelAnswer,
    Describe,
    Error,
    Ping,
    Pong,
    Progress,
    SegmentDecoded,
    StatusRequest,
    Transcribe,
    Transcript,
)
from asrd.wire.connection import Connection
from asrd.wire.fdsocket import EXHAUSTED
from asrd.wire.fields import dump, identifier, parse, parse_event
from asrd.wire.peer import Peer
from asrd.wire.records import AudioFormat, Options
from asrd.wire.worker_events import JobProgress, JobSegment

if TYPE_CHECKING:
    from asrd.front.front import Front

# Time for a client that broke the framing to read why, before its connection ends.
_LAST_WORDS_SECONDS = 1.0
# How soon it is noticed that a client has left that had said all it had to say (`socat` does so).
_HALF_CLOSED_SECONDS = 0.1
_GET_ID = identifier()
_BY_CLIENT = "the client cancelled it"


class _Discard:
    """Takes the payload of an event that has no use for one."""

    def write(self, data: memoryview) -> None:
        pass

    def close(self) -> None:
        pass


class Session:
    """`restricted`: on the public status socket, where nobody may transcribe or cancel."""

    def __init__(self, front: "Front", peer: Peer, restricted: bool) -> None:
        self._front = front
        self.peer = peer
        self._restricted = restricted
        self.requests: dict[str, Request] = {}
        self._stream = Stream(self._new_recording)
        # When the recording is given up: after a pause, and after all of its time.
        self._pause_ends = self._stream_ends = math.inf
        self._channel: Connection | None = None
        self._conversation: anyio.CancelScope
        # Whether it asked for anything that only asrd has: then it knows errors, too.
        self._knows_asrd = False
        # A plain Wyoming recording got an error; and the connection ends for that.
        self._got_error = self._leaving = False

    def __repr__(self) -> str:
        return f"<Session user={self.peer.user} pid={self.peer.pid} jobs={len(self.requests)}>"

    @property
    def log_fields(self) -> dict[str, object]:
        """For the `extra` of a log line about this client."""
        return {"fields": self.peer.log_fields}

    async def run(self, channel: Connection) -> None:
        """Serve the connection until its end; then what it still waited for is cancelled."""
        self._channel = channel
        self._front.sessions.add(self)
        try:
            await self._converse(channel)
            if self._leaving:
                await self._take_leave(channel)
        except ProtocolError as problem:
            self._send_error(Failure(Code.BAD_REQUEST, str(problem)))
            await channel.flush(_LAST_WORDS_SECONDS)
        except Busy as problem:
            self._send_error(Failure(Code.BUSY, problem.text, retry_after_ms=1000))
            await channel.flush(_LAST_WORDS_SECONDS)
        except OSError as problem:
            # If it was not us, the peer is gone, and there is nobody to tell.
            if problem.errno in EXHAUSTED:
                self._send_error(Failure(Code.BUSY, str(problem.strerror), retry_after_ms=1000))
                await channel.flush(_LAST_WORDS_SECONDS)
        finally:
            self._channel = None
            self._front.sessions.discard(self)
            self._stream.drop()
            for request in list(self.requests.values()):
                self._front.cancel(request, "the client left")

    async def _converse(self, channel: Connection) -> None:
        with anyio.CancelScope() as self._conversation:
            while not self._leaving and (framed := await self._next_frame(channel)) is not None:
                try:
                    if framed.type == Describe.TYPE:
                        began = anyio.current_time()
                        await self._front.models_known()
                        # This pause is ours, not the client's.
                        self._pause_ends += anyio.current_time() - began
                    self._handle(framed)
                finally:
                    framed.close()
            while (self.requests or channel.unread) and channel.half_closed:
                await anyio.sleep(_HALF_CLOSED_SECONDS)

    async def _take_leave(self, channel: Connection) -> None:
        """Show the client the end, and take what it still sends: to close at once would break its
        writing before it has read the error."""
        await channel.flush(_LAST_WORDS_SECONDS)
        channel.shutdown(socket.SHUT_WR)
        with anyio.move_on_after(self._front.settings.frame_timeout_seconds):
            while (framed := await channel.receive()) is not None:
                framed.close()

    def _leave_if_over(self, plain_error: bool = False) -> None:
        """End a plain conversation that got an error, once nothing else on it is unanswered."""
        self._got_error |= plain_error and not self._knows_asrd
        over = not self.requests and not self._stream.is_open
        if self._got_error and over and self._channel is not None:
            self._leaving = True
            self._conversation.cancel()

    async def _next_frame(self, channel: Connection) -> frames.Frame | None:
        """As Connection.receive; meanwhile a recording that takes too long is given up."""
        if self._stream.is_open:
            with anyio.CancelScope(deadline=min(self._pause_ends, self._stream_ends)):
                return await channel.receive()
            # In the middle of an event the channel has a clock of its own.
            if not channel.in_event:
                self._give_up_stream(AudioChunk.TYPE, self._overdue())
        return await channel.receive()

    def _overdue(self) -> Failure:
        settings = self._front.settings
        if anyio.current_time() >= self._stream_ends:
            text = f"audio: it took longer to come than {settings.max_audio_seconds:g} s"
            return Failure(Code.TOO_LARGE, text)
        text = f"nothing came for {settings.frame_timeout_seconds:g} s in the middle of a recording"
        return Failure(Code.BAD_REQUEST, text)

    def _on_audio(self, begins: bool = False) -> None:
        """Chunks, and nothing else, keep a recording alive; longer than what they tell may last,
        with a pause more, it can't take to tell it."""
        settings = self._front.settings
        self._pause_ends = anyio.current_time() + settings.frame_timeout_seconds
        if begins:
            self._stream_ends = self._pause_ends + settings.max_audio_seconds

    def _new_recording(self) -> SpooledAudio:
        return self._front.new_recording(self.peer.user)

    def open_sink(self, event: frames.Frame) -> frames.Sink:
        """Where the payload of an event goes, while it arrives."""
        if not (self._restricted or self._leaving):
            if event.type == Transcribe.TYPE:
                return self._new_recording()
            if event.type == AudioChunk.TYPE:
                return self._stream.sink() or _Discard()
        return _Discard()

    # --- what the client says ---------------------------------------------------------------------

    def _handle(self, framed: frames.Frame) -> None:
        try:
            event = parse_event(FROM_CLIENT, framed.type, framed.data)
            if event is None:
                self._front.metrics.ignored_events += 1
                return
            if self._restricted and not isinstance(event, (Describe, Ping, StatusRequest)):
                raise BadRequest("this socket answers status, ping and describe")
            self._dispatch(event, framed)
        except FieldError as problem:
            self._refuse(framed, Failure(Code.BAD_REQUEST, f"{framed.type}: {problem}"))
        except JobError as problem:
            text = f"{framed.type}: {problem.text}"
            failure = Failure(problem.code, text, retry_after_ms=problem.retry_after_ms)
            self._refuse(framed, failure)

    def _dispatch(self, event: Any, framed: frames.Frame) -> None:
        match event:
            case Transcribe():
                self._knows_asrd |= not is_plain(event)
                options = with_hints(event, parse(Options, framed.data))
                if event.audio is None:
                    self._begin_stream(event, options, framed)
                else:
                    self._one_shot(event, options, framed)
            case AudioStart():
                self._stream.start(event)
                self._on_audio(begins=True)
            case AudioChunk():
                self._stream.chunk(event)
                self._on_audio()
            case AudioStop():
                self._audio_stop()
            case Cancel():
                self._cancel(event.job_id)
            case Describe():
                self._send("info", self._front.info())
            case Ping():
                self._send(Pong.TYPE, dump(Pong(event.text)))
            case StatusRequest():
                self._status(event)

    def _status(self, event: StatusRequest) -> None:
        answer = self._front.status(self.peer)
        if event.crashes:
            crashes = self._front.crashes
            answer["crashes"] = [crash.as_data(self.peer, self._restricted) for crash in crashes]
        self._send("status", answer)

    def _one_shot(self, asked: Transcribe, options: Options, framed: frames.Frame) -> None:
        self._refuse_twice(asked)
        audio = self._take_audio(framed)
        try:
            if isinstance(audio, SpooledAudio):
                audio.seal()
            format_ = asked.audio or AudioFormat("file")
            request = self._front.make_request(self, asked, options, format_, audio)
        except BaseException:
            audio.close()
            raise
        self._submit(request)

    def _take_audio(self, framed: frames.Frame) -> JobAudio:
        """The one place where an event's audio changes its owner."""
        if len(framed.fds) + (framed.payload is not None) != 1:
            raise FieldError("audio", "needs either a payload or exactly one descriptor")
        if framed.fds:
            return ClientFile(framed.fds.pop(), self._front.settings.max_file_bytes)
        recording, framed.payload = framed.payload, None
        if not isinstance(recording, SpooledAudio):
            raise BadAudio("audio: is empty")
        return recording

    def _begin_stream(self, asked: Transcribe, options: Options, framed: frames.Frame) -> None:
        if framed.fds or framed.payload is not None:
            raise FieldError("audio", "is missing, but there is a payload or a descriptor")
        self._stream.ask(asked, options)

    def _audio_stop(self) -> None:
        recorded = self._stream.stop()
        if recorded is None:
            return
        asked = recorded.asked
        try:
            self._refuse_twice(asked)
            recorded.recording.seal()
            if not recorded.recording.size and is_plain(asked):
                self._nothing_said(recorded)
                return
            request = self._front.make_request(
                self, asked, recorded.options, recorded.format, recorded.recording
            )
        except BaseException:
            recorded.recording.close()
            raise
        self._stream.accepted()
        self._submit(request)

    def _nothing_said(self, recorded: Recorded) -> None:
        """Answers with an empty transcript, as wyoming-faster-whisper does: pressing a button too
        briefly is no error."""
        recorded.recording.close()
        self._stream.accepted()
        self._send(Transcript.TYPE, nothing_said(recorded.options))

    def _refuse_twice(self, asked: Transcribe) -> None:
        if asked.job_id in self.requests:
            raise FieldError("job_id", f"{asked.job_id!r} is in flight on this connection already")

    def _submit(self, request: Request) -> None:
        self.requests[request.job_id] = request
        self._front.submit(request)

    def _cancel(self, job_id: str) -> None:
        request = self.requests.get(job_id)
        if request is not None:
            self._front.cancel(request, _BY_CLIENT)
        elif not self.cancel_recording(job_id, Failure(Code.CANCELLED, _BY_CLIENT)):
            self._cancel_elsewhere(job_id)

    def cancel_recording(self, job_id: str, failure: Failure) -> bool:
        """End a job whose audio is still on its way, if there is one of this id."""
        asked = self._stream.cancel(job_id)
        if asked is None:
            return False
        self._front.refused(self, failure)
        self._send_error(failure, asked.job_id, asked.trace_id)
        return True

    def _cancel_elsewhere(self, job_id: str) -> None:
        count = self._front.cancel_foreign(self.peer, job_id)
        self._send(CancelAnswer.TYPE, dump(CancelAnswer(job_id, count)))

    # --- what it is told --------------------------------------------------------------------------

    def accepted(self, request: Request, queue_depth: int) -> None:
        if not request.plain:
            self._send(Accepted.TYPE, dump(Accepted(request.job_id, queue_depth)))

    def segment(self, request: Request, event: JobSegment) -> None:
        if request.stream:
            data = {"job_id": request.job_id, "index": event.index, "segment": event.segment}
            self._send(SegmentDecoded.TYPE, data)

    def progress(self, request: Request, event: JobProgress) -> None:
        if request.stream:
            told = Progress(request.job_id, event.audio_seconds_done, event.audio_seconds)
            self._send(Progress.TYPE, dump(told))

    def finished(self, request: Request, transcript: dict[str, Any]) -> None:
        self.requests.pop(request.job_id, None)
        self._send(Transcript.TYPE, transcript)
        self._leave_if_over()

    def failed(self, request: Request, failure: Failure) -> None:
        self.requests.pop(request.job_id, None)
        self._send_error(failure, request.job_id, request.trace_id)
        self._leave_if_over(request.plain)

    def _refuse(self, framed: frames.Frame, failure: Failure) -> None:
        """An event that came to nothing; the answer names its job if that could be read."""
        if framed.type in STREAMED and not self._restricted:
            self._give_up_stream(framed.type, failure)
            return
        plain = False
        if framed.type == Transcribe.TYPE and _asks_for_stream(framed) and not self._restricted:
            self._stream.refuse()
            plain = not (framed.data.get("job_id") or framed.data.get("stream"))
        self._front.refused(self, failure)
        self._send_error(failure, _id(framed, "job_id"), _id(framed, "trace_id"))
        self._leave_if_over(plain)

    def _give_up_stream(self, kind: str, failure: Failure) -> None:
        asked = self._stream.give_up(kind)
        if asked is not None:
            self._front.refused(self, failure)
            self._send_error(failure, asked.job_id, asked.trace_id)
            self._leave_if_over(is_plain(asked))

    def _send_error(
        self, failure: Failure, job_id: str | None = None, trace_id: str | None = None
    ) -> None:
        self._send(Error.TYPE, error(failure, job_id, trace_id))

    def _send(self, kind: str, data: dict[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(kind, data)


def _id(framed: frames.Frame, key: str) -> str | None:
    """What an answer may repeat: what is no id would make the answer itself malformed."""
    try:
        value: str = _GET_ID(key, framed.data.get(key))
    except FieldError:
        return None
    return value


def _asks_for_stream(framed: frames.Frame) -> bool:
    bare = framed.payload_length == 0 and not framed.fds
    return bare and framed.data.get("audio") is None
