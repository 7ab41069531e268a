"""Clients that break the rules. Each must get an error or the end of its connection in time, and
none may affect other clients.
"""

import functools
import json
import os
import random
import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import asrd
from asrd.demo import SAMPLES
from asrd.errors import ConnectionLost
from asrd.wire import frames
from asrd.wire.fds import OwnedFd
from tests.soak.honest import CUT_OFF, FILE, HANG_SECONDS, Context, Line, ask_somehow, insistent
from tests.soak.oracle import Job, Kind
from tests.support.raw import PCM, Peer, memfd

_WAV = (SAMPLES / "en-4.wav").read_bytes()
_NEVER_READ_MAX = 20_000
_DRIP_SECONDS = 0.5
# The interval between two looks at a connection that the daemon must end.
_LOOK_SECONDS = 1.0
# The ids of jobs of the ledger that have a user.
_USERS_JOB = re.compile(r"\bj\d+u(\d+)\b")


def _may_be_cut_off(ask: Callable[[Context], None]) -> Callable[[Context], None]:
    """Takes the end of the connection as an answer, at any moment."""

    @functools.wraps(ask)
    def behaviour(context: Context) -> None:
        with suppress(*CUT_OFF):
            ask(context)

    return behaviour


def _pipe(chance: random.Random) -> OwnedFd:
    reader, writer = os.pipe()
    os.close(writer)
    return OwnedFd(reader)


def _socket(chance: random.Random) -> OwnedFd:
    ours, theirs = socket.socketpair()
    theirs.close()
    return OwnedFd(ours.detach())


_BAD_FILES: dict[str, Callable[[random.Random], OwnedFd]] = {
    "nothing": lambda chance: memfd(b""),
    "pipe": _pipe,
    "socket": _socket,
    "directory": lambda chance: OwnedFd(os.open("/", os.O_RDONLY | os.O_DIRECTORY)),
    "device": lambda chance: OwnedFd(os.open("/dev/zero", os.O_RDONLY)),
    "path only": lambda chance: OwnedFd(os.open("/etc/hostname", os.O_PATH)),
    "noise": lambda chance: memfd(chance.randbytes(chance.randint(1, 50_000))),
    "text": lambda chance: memfd(b"this is a sentence and no audio at all"),
    "playlist": lambda chance: memfd(b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"),
    "half a header": lambda chance: memfd(_WAV[: chance.randint(1, 44)]),
}


@insistent
def bad_audio(context: Context) -> Job:
    """Sends no audio or a damaged file, sometimes with an innocent job on the same connection."""
    name, make = context.chance.choice([*_BAD_FILES.items()])
    with Line(context) as line:
        if context.chance.random() < 0.3:
            ask_somehow(line, Kind.INNOCENT)
        job = context.open(Kind.BAD_AUDIO, name)
        line.ask(job, FILE, fd=make(context.chance))
        line.wait_for_answers()
    return job


@insistent
def half_a_sample(context: Context) -> Job:
    payload = bytes(2 * context.chance.randint(0, 5_000) + 1)
    with Line(context) as line:
        job = context.open(Kind.BAD_AUDIO, "half a sample")
        line.ask(job, PCM, payload=payload)
        line.wait_for_answers()
    return job


@insistent
def truncate_after_sending(context: Context) -> Job:
    """Truncates a memfd after sending it. A worker that maps it would die of SIGBUS; one that reads
    it may have been quick enough."""
    clip = context.clip()
    shared = memfd(clip.pcm)
    with Line(context) as line, shared:
        job = context.open(Kind.DOUBTFUL, "truncated memfd", clip)
        line.ask(job, clip.format, fd=OwnedFd(os.dup(shared.fileno())), **clip.options)
        # A file that is truncated before asrd reads its size is simply a shorter file.
        line.wait_for_event()
        time.sleep(context.chance.choice([0, 0.01, 0.1]))
        os.ftruncate(shared.fileno(), context.chance.choice([0, 1, len(clip.pcm) // 4 * 2]))
        line.wait_for_answers()
    return job


@insistent
def byte_by_byte(context: Context) -> Job:
    clip = context.clip()
    with Line(context) as line:
        job = context.open(Kind.INNOCENT, "byte by byte", clip)
        data = {"job_id": job.id, "audio": clip.format, **clip.options}
        start = frames.encode("transcribe", data, len(clip.pcm))
        line.expect(job)
        try:
            for index in range(len(start)):
                line.peer.send_raw(start[index : index + 1])
            line.peer.send_raw(clip.pcm)
        except CUT_OFF:
            job.note("could not be sent whole")
        line.wait_for_answers()
    return job


def hang_up(context: Context) -> None:
    """Disconnects after any byte of a request, the last one included."""
    clip = context.clip()
    data = {"audio": clip.format, **clip.options}
    message = frames.encode("transcribe", data, len(clip.pcm)) + clip.pcm
    edge = context.chance.choice([300, len(message)])
    with Peer.connect(context.socket) as peer:
        peer.send_raw(message[: context.chance.randint(0, edge)])


@_may_be_cut_off
def stall(context: Context) -> None:
    """Stops in the middle of a frame: the daemon must end the connection."""
    pieces = [b'{"type": "trans', b'{"type": "transcribe", "payload_length": 1000}\nabc']
    with _served(context) as peer:
        peer.send_raw(context.chance.choice(pieces))
        _must_end(context, peer, "a client that stalls in a frame")


@_may_be_cut_off
def drip(context: Context) -> None:
    """Sends a frame so slowly that it never ends: the time limit is for the whole frame."""
    with _served(context) as peer:
        begun = time.monotonic()
        for byte in frames.encode("status", {"text": "x" * 1_000}):
            peer.send_raw(bytes([byte]))
            if _overdue(context, begun):
                context.ledger.fail("a client that drips was not cut off")
                return
            time.sleep(_DRIP_SECONDS)


@_may_be_cut_off
def never_read(context: Context) -> None:
    """Never reads: the daemon must cut it off when the answers exceed their bound."""
    with Peer.connect(context.socket) as peer:
        question = frames.encode("describe", {}) * 50
        try:
            for _ in range(_NEVER_READ_MAX // 50):
                peer.send_raw(question)
        except TimeoutError:
            context.ledger.fail("a client that does not read is neither served nor cut off")
            return
    context.ledger.fail(f"{_NEVER_READ_MAX} answers are kept for a client that does not read")


@_may_be_cut_off
def flood_descriptors(context: Context) -> None:
    """Sends descriptors that the event does not declare, or more than any event may have."""
    count = context.chance.choice([1, frames.MAX_FDS, frames.MAX_FDS + 1, 200])
    with memfd(b"x") as fd, _served(context) as peer:
        socket.send_fds(peer.sock, [frames.encode("ping", {})], [fd.fileno()] * count)
        _must_end(context, peer, f"{count} undeclared descriptors")


_FATAL = [
    b"\n",
    b"hello\n",
    b"[]\n",
    b"{}\n",
    b'{"type": 5}\n',
    b'{"type": "ping", "data_length": -1}\n',
    b'{"type": "ping", "payload_length": 1e3}\n',
    b'{"type": "ping", "data_length": 99999999999}\n',
    b'{"type": "ping", "fds": 2}\n',
    b'{"type": "ping", "data": ' + b"[" * 5_000 + b"]" * 5_000 + b"}\n",
    b'{"type": "ping", "type": "status"}\n',
    b"\x00\xff\xfe\n",
    b"x" * 70_000,
]
_FORGIVEN: list[dict[str, Any]] = [
    {"audio": "file"},
    {"audio": {"encoding": "mp3"}},
    {"job_id": "../../etc/passwd\n"},
    {"timeout_ms": 0},
    {"beam_size": 10**9},
    {"temperature": "hot"},
    {"temperature": [0.0] * 17},
    {"suppress_tokens": [1 << 40]},
    {"clip_timestamps": [0, -1]},
    {"languages": ["en", "klingon"]},
    {"vad_parameters": {"threshold": 1e308}},
    {"prefix": "x" * 4097},
    {"audio": {"encoding": "pcm_s16le", "sample_rate": -1}},
]


@_may_be_cut_off
def malformed(context: Context) -> None:
    """Sends wrong framing, which ends the connection, or a wrong field, which does not."""
    with _served(context) as peer:
        if context.chance.random() < 0.6:
            peer.send_raw(context.chance.choice(_FATAL))
            _must_end(context, peer, "a malformed frame")
            return
        wrong = context.chance.choice(_FORGIVEN)
        peer.send("transcribe", wrong)
        peer.send("ping")
        answers = [event.type for event in (peer.receive(), peer.receive()) if event is not None]
        if len(answers) == 2 and answers != ["error", "pong"]:
            context.ledger.fail(f"{json.dumps(wrong)} was answered with {answers}")


def crowd_the_door(context: Context) -> None:
    """Opens 50 connections and sends nothing."""
    with ExitStack() as peers:
        for _ in range(50):
            peers.enter_context(Peer.connect(context.socket))


def meddle(context: Context) -> None:
    """Cancels another user's job by its id: the daemon must ignore it, as if there were no such
    job."""
    others = [job for job in list(context.ledger.jobs.values()) if job.uid != context.uid]
    if not others:
        return
    victim = context.chance.choice(others)
    try:
        with asrd.Client(context.socket) as client:
            ended = client.cancel(victim.id)
    except ConnectionLost:
        return
    if ended:
        context.ledger.fail(f"user {context.uid} cancelled {ended} jobs of another", victim)


@_may_be_cut_off
def spy(context: Context) -> None:
    """Asks for the status: it must not name another user's jobs."""
    with Peer.connect(context.socket) as peer:
        for question in ("status", "describe"):
            peer.send(question)
            answer = peer.receive()
            seen = "" if answer is None else json.dumps(answer.data)
            for uid in set(_USERS_JOB.findall(seen)) - {str(context.uid)}:
                context.ledger.fail(f"user {context.uid} sees a job of user {uid}: {seen}")


def _served(context: Context) -> Peer:
    """A connection that a front serves: while one ends its jobs before it stops, a client waits in
    the socket for the next."""
    peer = Peer.connect(context.socket)
    peer.sock.settimeout(HANG_SECONDS)
    with ExitStack() as stack:
        stack.callback(peer.close)
        peer.send("ping")
        peer.receive_kind()
        stack.pop_all()
    return peer


def _overdue(context: Context, begun: float) -> bool:
    """True if the daemon must have cut off an unfinished frame by now. If the front is stopped, a
    client waits in the socket until the watchdog has replaced the front: then it has longer."""
    limits = context.ledger.limits
    allowed = limits.frame + limits.grace
    if context.ledger.acted("SIGSTOP", "front", begun):
        allowed += limits.slow_death
    return time.monotonic() - begun > allowed


def _must_end(context: Context, peer: Peer, client: str) -> None:
    """Checks that the connection ends, after nothing but errors and answers to earlier events."""
    begun = time.monotonic()
    peer.sock.settimeout(_LOOK_SECONDS)
    while not _overdue(context, begun):
        try:
            event = peer.receive()
        except TimeoutError:
            continue
        if event is None:
            return
        if event.type not in ("error", "pong"):
            context.ledger.fail(f"{client} was answered with {event.type} {event.data}")
    context.ledger.fail(f"{client} was not cut off")
