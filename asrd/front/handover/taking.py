"""The next front: goes on with the clients and jobs of the one before it.

A client whose state can't be understood gets an error and the end of its connection.
"""

import contextlib
import logging
import math
import os
import socket
import stat
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import anyio

from asrd.errors import Busy, Code, FieldError, TooLarge
from asrd.front.front import Front
from asrd.front.handover import packets
from asrd.front.handover.state import (
    ClientState,
    JobState,
    Recording,
    StreamState,
    decode,
)
from asrd.front.request import Finished, Request, error, needs_of
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.handover import resume
from asrd.front.scheduling.job import Job
from asrd.front.session import Session
from asrd.front.spool import ClientFile, SpooledAudio
from asrd.front.stream import Recorded, Stream
from asrd.wire import frames
from asrd.wire.client_events import Error
from asrd.wire.connection import Connection
from asrd.wire.fds import OwnedFd
from asrd.wire.fdsocket import peer_of
from asrd.wire.fields import dump, parse

log = logging.getLogger(__name__)

_LOST = "asrd restarted, and could not go on with this connection: send the request again"
LOST = Failure(Code.SHUTTING_DOWN, _LOST, retry_after_ms=1000)

# Seconds for living workers to report.
_REPORTS_SECONDS = 1.0

# Makes the connection of a session.
Connect = Callable[[socket.socket, Session], Connection]


class Taken(NamedTuple):
    session: Session
    connection: Connection


class _Descriptors:
    """The descriptors that came. Each has one owner: the first that takes it."""

    def __init__(self, fds: list[OwnedFd]) -> None:
        self._fds = fds

    def take(self, place: int, connection: bool | None = None) -> OwnedFd:
        """`connection`: it must be one, or none. Raises FieldError."""
        if place >= len(self._fds):
            raise FieldError("fd", "did not come")
        fd = self._fds[place]
        try:
            if connection is not None and _is_socket(fd) != connection:
                raise FieldError("fd", "is of another kind")
            return OwnedFd(fd.take())
        except ValueError:
            raise FieldError("fd", "belongs to another client") from None
        except OSError as problem:
            # For example, a client's file on a network file system that is gone.
            raise FieldError("fd", f"cannot be inspected: {problem.strerror}") from None

    def refuse_rest(self) -> None:
        """Answers on the connections that nobody took, and closes what is left."""
        for fd in self._fds:
            with fd, contextlib.suppress(OSError, ValueError):
                if _is_socket(fd):
                    _refuse(socket.socket(fileno=os.dup(fd.fileno())))


def _is_socket(fd: OwnedFd) -> bool:
    """Raises ValueError if somebody took it."""
    return stat.S_ISSOCK(os.fstat(fd.fileno()).st_mode)


def _refuse(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(frames.encode(Error.TYPE, dump(error(LOST))))
        sock.shutdown(socket.SHUT_RDWR)


def take(front: Front, connect: Connect, fds: list[OwnedFd], raw: bytes, now: float) -> list[Taken]:
    """Makes the clients and jobs of the front before this one ours, and owns `fds`. The caller
    serves each connection."""
    descriptors = _Descriptors(fds)
    clients: list[Taken | None] = []
    try:
        state = decode(raw)
        for each in state.clients:
            clients.append(_client(front, connect, each, descriptors))
        jobs = [_job(front, clients, each, descriptors, now) for each in state.jobs]
        log.info("taken over: %d clients, %d jobs", len(clients), sum(jobs))
    except FieldError as problem:
        log.error("cannot go on where the front before this one ended: %s", problem)
    except Exception:
        # Our bug: it must not end the daemon, and each client gets an answer.
        log.exception("cannot go on where the front before this one ended")
        for client in filter(None, clients):
            client.connection.send(Error.TYPE, dump(error(LOST)))
            client.connection.shutdown()
    descriptors.refuse_rest()
    # Until `start_jobs`.
    front.scheduler.suspended = not front.scheduler.idle
    return [client for client in clients if client is not None]


async def start_jobs(front: Front) -> None:
    """Starts the jobs once the workers have reported their models, or were silent for a moment:
    which of the models is the first is not known before."""
    with anyio.move_on_after(_REPORTS_SECONDS):
        await front.announcements.wait()
    front.go_on()


def turn_away(handed_over: Sequence[socket.socket]) -> None:
    """Answers the clients of the front before this one, with whom this one can't go on."""
    for stored in handed_over:
        with stored:
            fds, _ = packets.receive(stored)
        _Descriptors(fds).refuse_rest()


def _client(front: Front, connect: Connect, raw: dict[str, Any], fds: _Descriptors) -> Taken | None:
    """Returns None for a client that can't be understood."""
    try:
        state = parse(ClientState, raw)
        door = front.doors.get(state.door)
        if door is None:
            raise FieldError("door", "is unknown")
        fd = fds.take(state.fd, connection=True)
    except FieldError as problem:
        log.error("a client is lost: %s", problem)
        return None
    sock = socket.socket(fileno=fd.take())
    try:
        session = Session(front, peer_of(sock, sock.getpeername()), door)
        connection = connect(sock, session)
    except OSError:
        # It is gone already.
        sock.close()
        return None
    try:
        _resume_stream(session, session.stream, state.stream, fds)
        _resume_connection(session, connection, state, fds)
    except (FieldError, ValueError) as problem:
        log.error("a client is lost: %s", problem)
        session.stream.drop(LOST)
        connection.send(Error.TYPE, dump(error(LOST)))
        connection.shutdown()
        connection.close()
        return None
    session.knows_asrd, session.got_error = state.knows_asrd, state.got_error
    session.leaving, session.describing = state.leaving, state.describing
    session.connection = connection
    return Taken(session, connection)


def _resume_connection(
    session: Session, connection: Connection, state: ClientState, fds: _Descriptors
) -> None:
    """Raises FieldError, ValueError; the connection may own some descriptors then."""
    sink: frames.Sink | None = None
    if state.payload is not None:
        sink = _recording(session, state.payload, fds)
    elif state.partial.state == "payload":
        event = frames.Frame(state.partial.type, state.partial.data, state.partial.payload_length)
        sink = session.open_sink(event)
    # One by one, so that all that were taken are closed with the connection.
    connection.decoder.resume(state.partial, sink, map(fds.take, state.waiting))
    connection.resume_output(b64decode(state.output))


def _resume_stream(session: Session, stream: Stream, state: StreamState, fds: _Descriptors) -> None:
    following = state.next
    stream.next = None if following is None else (following.transcribe, following.options)
    stream.current, stream.skipping = state.current, state.skipping
    if (arriving := state.arriving) is not None:
        announced, audio = arriving.announced, _recording(session, arriving.audio, fds)
        request = announced.transcribe, announced.options
        stream.arriving = Recorded(*request, arriving.format, audio)
        session.pause_ends, session.stream_ends = arriving.pause_ends, arriving.ends


def _recording(session: Session, state: Recording, fds: _Descriptors) -> SpooledAudio:
    door = session.door
    audio: tuple[OwnedFd, int] | TooLarge | Busy
    if state.fd is not None:
        audio = fds.take(state.fd, connection=False), state.size
    elif state.too_large:
        audio = TooLarge(state.problem)
    else:
        audio = Busy(state.problem, retry_after_ms=1000)
    return SpooledAudio.resumed(door.spool, session.peer.user, door.limits.payload, audio)


def _job(
    front: Front,
    clients: list[Taken | None],
    raw: dict[str, Any],
    fds: _Descriptors,
    now: float,
) -> bool:
    """Returns False for a job that can't be understood: its client gets an error."""
    client: Taken | None = None
    try:
        place = raw.get("client")
        if isinstance(place, int) and 0 <= place < len(clients):
            client = clients[place]
        state = parse(JobState, raw)
        if client is None:
            raise FieldError("client", "is lost")
        request = _request(client.session, state, fds.take(state.audio, connection=False))
    except FieldError as problem:
        log.error("a job is lost: %s", problem)
        if client is not None:
            client.connection.send(Error.TYPE, dump(error(LOST, _text(raw, "job_id"))))
        return False
    client.session.requests[request.job_id] = request
    front.unanswered.add(request.user)
    if request.finished.size:
        front.transcripts.add(request, "", ())
    resume(front.scheduler, request.job, now)
    return True


def _text(raw: dict[str, Any], key: str) -> str | None:
    value = raw.get(key)
    return value if isinstance(value, str) else None


def _request(session: Session, state: JobState, fd: OwnedFd) -> Request:
    audio: SpooledAudio | ClientFile = ClientFile.resumed(fd, state.size)
    if state.inline:
        door = session.door
        user = session.peer.user
        audio = SpooledAudio.resumed(door.spool, user, door.limits.payload, (fd, state.size))
    job = Job(
        user=state.user,
        arrival=state.arrival,
        needs=needs_of(state.needs_model, state.options),
        size=state.size,
        seconds=state.seconds,
        timeout=state.timeout,
        wait_left=math.inf if state.wait_left is None else state.wait_left,
        load_left=state.load_left,
        attempts=state.attempts,
        model=state.model,
        deaths=state.deaths,
        started_at=state.started_at,
        kept=state.kept,
        resumed_at=state.kept,
        done=state.kept,
        work=state.work,
        work_before=state.work,
        stranger=session.peer.uid is None,
    )
    finished = Finished()
    finished.text += state.text.encode()
    finished.segments += state.segments.encode()
    finished.count = state.count
    request = Request(
        client=session,
        job=job,
        job_id=state.job_id,
        trace_id=state.trace_id,
        audio=audio,
        format=state.format,
        options=state.options,
        max_audio_seconds=state.max_audio_seconds,
        stream=state.stream,
        plain=state.plain,
        finished=finished,
        checkpoint=state.checkpoint,
    )
    job.request = request
    return request
