"""The front that ends: its clients and jobs as plain data, and their descriptors."""

import logging
import math
import socket
from base64 import b64encode
from collections.abc import Iterator
from typing import NamedTuple

import anyio

from asrd.errors import Code, ProtocolError
from asrd.front.front import Front
from asrd.front.handover import packets
from asrd.front.handover.state import (
    Announced,
    ClientState,
    JobState,
    OpenStream,
    Recording,
    StreamState,
    encode,
)
from asrd.front.request import Request
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.handover import suspend
from asrd.front.scheduling.job import Job
from asrd.front.session import Session
from asrd.front.spool import ClientFile, SpooledAudio
from asrd.front.stream import Stream
from asrd.wire.connection import Connection
from asrd.wire.fds import OwnedFd

log = logging.getLogger(__name__)

RESTARTS = Failure(Code.SHUTTING_DOWN, "asrd restarts", retry_after_ms=1000)


# Seconds that short jobs may take, which are a window at most, and between two looks.
_SHORT_SECONDS, _LOOK_SECONDS = 1.0, 0.02


class _Descriptors:
    """The descriptors to send, which stay their owners'. `add` returns a place."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def add(self, fd: int) -> int:
        self.sent.append(fd)
        return len(self.sent) - 1


class Given(NamedTuple):
    state: bytes
    fds: list[int]
    clients: int
    jobs: int


async def finish_short_jobs(front: Front) -> None:
    """Waits a moment for the short jobs that run, which would have to begin again, and for the rest
    of live streams that have ended, whose text is not handed over. Clients are served meanwhile,
    but no other job starts, only to begin again.

    So even a front that is restarted again and again has answers to give.
    """
    running = [job for job in front.scheduler.running() if not (job.long or job.step)]
    front.scheduler.suspended = True
    with anyio.move_on_after(_SHORT_SECONDS):
        while (rests := any(_rests(front))) or any(not job.ended for job in running):
            if rests:
                # It waits like any job, and its stream may have ended only now.
                front.go_on()
            await anyio.sleep(_LOOK_SECONDS)


def give(front: Front, store: socket.socket) -> bool:
    """Hands everything over to the next front, at once: no code of this one may run afterwards.
    Returns False if that is impossible. Live streams end, since they are too much state."""
    try:
        given = collect(front)
        packets.send(store, given.fds, given.state)
    except OSError as problem:
        log.error("cannot hand over to the next front: %s", problem.strerror)
    except Exception:
        # Our bug, or no memory: it must not end the daemon before every job has an answer.
        log.exception("cannot hand over to the next front")
    else:
        log.info("handed over: %d clients, %d jobs", given.clients, given.jobs)
        return True
    # Their workers have been forgotten, and nothing starts any more.
    for job in front.scheduler.unfinished():
        front.cancel(job.request, RESTARTS)
    return False


def collect(front: Front) -> Given:
    """Returns the state of all clients and jobs. The front starts no jobs any more."""
    _end_live_streams(front)
    jobs = suspend(front.scheduler, anyio.current_time())
    fds = _Descriptors()
    clients: list[ClientState] = []
    places: dict[Session, int] = {}
    for session, connection in _served(front):
        try:
            clients.append(_client(session, connection, fds))
        except ProtocolError:
            # It has had its last answer.
            continue
        places[session] = len(clients) - 1
    requests = (job.request for job in jobs if job.request.client in places)
    states = [_job(request, places[request.client], fds) for request in requests]
    return Given(encode(clients, states), fds.sent, len(clients), len(states))


def _served(front: Front) -> list[tuple[Session, Connection]]:
    """Returns the clients in the order of their descriptors."""
    sessions = (client for client in front.clients if isinstance(client, Session))
    pairs = ((each, each.connection) for each in sessions if each.connection is not None)
    # One that was cut off has had its last answer.
    kept = [pair for pair in pairs if not pair[1].overflowed]
    return sorted(kept, key=lambda pair: pair[1].fileno())


def _end_live_streams(front: Front) -> None:
    """Ends them, and the jobs that are the rest of one."""
    front.unanswered.fail_streams(RESTARTS)
    for job in list(_rests(front)):
        front.cancel(job.request, RESTARTS)


def _rests(front: Front) -> Iterator[Job]:
    """The jobs that are the rest of a live stream."""
    return (job for job in front.scheduler.unfinished() if job.request.text is not None)


def _client(session: Session, connection: Connection, fds: _Descriptors) -> ClientState:
    """Raises ProtocolError if it has broken the protocol."""
    partial, sink, waiting = connection.decoder.partial()
    return ClientState(
        fd=fds.add(connection.fileno()),
        door=session.door.name,
        output=b64encode(connection.output).decode(),
        partial=partial,
        stream=_stream(session, session.stream, fds),
        knows_asrd=session.knows_asrd,
        got_error=session.got_error,
        leaving=session.leaving,
        describing=session.describing,
        payload=_recording(sink, fds) if isinstance(sink, SpooledAudio) else None,
        waiting=tuple(fds.add(fd.fileno()) for fd in waiting if isinstance(fd, OwnedFd)),
    )


def _stream(session: Session, stream: Stream, fds: _Descriptors) -> StreamState:
    opened = None
    if stream.arriving is not None and isinstance(audio := stream.arriving.audio, SpooledAudio):
        transcribe, options, format_, _ = stream.arriving
        ends = session.pause_ends, session.stream_ends
        announced = Announced(transcribe, options)
        opened = OpenStream(announced, format_, _recording(audio, fds), *ends)
    following = None if stream.next is None else Announced(*stream.next)
    return StreamState(stream.current, stream.skipping, following, opened)


def _recording(audio: SpooledAudio, fds: _Descriptors) -> Recording:
    problem = audio.problem
    if problem is not None:
        return Recording(too_large=problem.code is Code.TOO_LARGE, problem=problem.text)
    return Recording(fds.add(audio.fd.fileno()), audio.size)


def _job(request: Request, client: int, fds: _Descriptors) -> JobState:
    job, finished = request.job, request.finished
    return JobState(
        client=client,
        job_id=request.job_id,
        audio=fds.add(request.audio.fd.fileno()),
        size=request.audio.size,
        inline=not isinstance(request.audio, ClientFile),
        format=request.format,
        options=request.options,
        max_audio_seconds=request.max_audio_seconds,
        stream=request.stream,
        plain=request.plain,
        user=job.user,
        arrival=job.arrival,
        seconds=job.seconds,
        attempts=job.attempts,
        deaths=job.deaths,
        kept=job.kept,
        work=job.work,
        started_at=job.started_at,
        load_left=job.load_left,
        text=finished.text.decode(),
        segments=finished.segments.decode(),
        count=finished.count,
        trace_id=request.trace_id,
        needs_model=job.needs.model,
        model=job.model,
        timeout=job.timeout,
        wait_left=None if math.isinf(job.wait_left) else job.wait_left,
        checkpoint=request.checkpoint,
    )
