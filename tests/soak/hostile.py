"""Clients that break the rules. None is owed a transcript; all are owed an error or the end of
their connection, in time, and none may cost anybody else anything."""

import json
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import asrd
from asrd.demo import SAMPLES
from asrd.errors import ConnectionLost
from asrd.wire import frames
from asrd.wire.fds import OwnedFd
from tests.soak.honest import FILE, PCM, Context, Line, ask_somehow, insistent
from tests.soak.ledger import Job, Kind
from tests.support.raw import Peer, memfd

_WAV = (SAMPLES / "en-4.wav").read_bytes()
_NEVER_READ_MAX = 20_000
_DRIP_SECONDS = 0.5
# How often it is looked whether the daemon is overdue.
_LOOK_SECONDS = 1.0
# As the ledger names them.
_USERS_JOB = re.compile(r"\bj\d+u(\d+)\b")


def _nothing(context: Context) -> OwnedFd:
    return memfd(b"")


def _pipe(context: Context) -> OwnedFd:
    reader, writer = os.pipe()
    os.close(writer)
    return OwnedFd(reader)


def _socket(context: Context) -> OwnedFd:
    ours, theirs = socket.socketpair()
    theirs.close()
    return OwnedFd(ours.detach())


def _directory(context: Context) -> OwnedFd:
    return OwnedFd(os.open("/", os.O_RDONLY | os.O_DIRECTORY))


def _device(context: Context) -> OwnedFd:
    return OwnedFd(os.open("/dev/zero", os.O_RDONLY))


def _path_only(context: Context) -> OwnedFd:
    return OwnedFd(os.open("/etc/hostname", os.O_PATH))


def _noise(context: Context) -> OwnedFd:
    return memfd(context.chance.randbytes(context.chance.randint(1, 50_000)))


def _text(context: Context) -> OwnedFd:
    return memfd(b"this is no audio at all, whatever you do")


def _playlist(context: Context) -> OwnedFd:
    return memfd(b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")


def _half_a_header(context: Context) -> OwnedFd:
    return memfd(_WAV[: context.chance.randint(1, 44)])


_BAD_FILES: list[Callable[[Context], OwnedFd]] = [
    _nothing,
    _pipe,
    _socket,
    _directory,
    _device,
    _path_only,
    _noise,
    _text,
    _playlist,
    _half_a_header,
]


@insistent
def bad_audio(context: Context) -> Job:
    """Some of it together with an innocent job on the same connection."""
    make = context.chance.choice(_BAD_FILES)
    with Line(context) as line:
        if context.chance.random() < 0.3:
            ask_somehow(line, Kind.INNOCENT)
        job = context.open(Kind.BAD_AUDIO, make.__name__.strip("_"))
        line.ask(job, FILE, fd=make(context))
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
    """A reader that maps it dies of SIGBUS; one that reads may have been quick enough."""
    clip = context.clip()
    shared = memfd(clip.pcm)
    with Line(context) as line, shared:
        job = context.open(Kind.DOUBTFUL, "truncated memfd", clip.text)
        line.ask(job, PCM, fd=OwnedFd(os.dup(shared.fileno())), language=clip.language)
        # What is cut before asrd has looked at it was never longer, as far as anyone can tell.
        line.wait_for_event()
        time.sleep(context.chance.choice([0, 0.01, 0.1]))
        os.ftruncate(shared.fileno(), context.chance.choice([0, 1, len(clip.pcm) // 4 * 2]))
        line.wait_for_answers()
    return job


@insistent
def byte_by_byte(context: Context) -> Job:
    clip = context.clip()
    with Line(context) as line:
        job = context.open(Kind.INNOCENT, "byte by byte", clip.text)
        data = {"job_id": job.id, "audio": PCM, "language": clip.language}
        start = frames.encode("transcribe", data, len(clip.pcm))
        line.expect(job)
        try:
            for index in range(len(start)):
                line.peer.send_raw(start[index : index + 1])
            line.peer.send_raw(clip.pcm)
        except (BrokenPipeError, ConnectionResetError):
            job.note("could not be sent whole")
        line.wait_for_answers()
    return job


def hang_up(context: Context) -> None:
    """After any byte of a request, its last included."""
    clip = context.clip()
    data = {"audio": PCM, "language": clip.language}
    message = frames.encode("transcribe", data, len(clip.pcm)) + clip.pcm
    edge = context.chance.choice([300, len(message)])
    with Peer.connect(context.socket) as peer:
        peer.send_raw(message[: context.chance.randint(0, edge)])


def stall(context: Context) -> None:
    """In the middle of a frame: the daemon must end it, long before we would."""
    pieces = [b'{"type": "trans', b'{"type": "transcribe", "payload_length": 1000}\nabc']
    with Peer.connect(context.socket) as peer:
        peer.send_raw(context.chance.choice(pieces))
        _must_end(context, peer, "a client that stalls in a frame")


def drip(context: Context) -> None:
    """Slowly enough never to finish: a frame has its time in all, not from byte to byte."""
    begun = time.monotonic()
    with Peer.connect(context.socket) as peer:
        for byte in frames.encode("status", {"text": "x" * 1_000}):
            try:
                peer.send_raw(bytes([byte]))
            except (BrokenPipeError, ConnectionResetError):
                return
            if _overdue(context, begun):
                context.ledger.fail("a client that drips was not cut off")
                return
            time.sleep(_DRIP_SECONDS)


def never_read(context: Context) -> None:
    """The daemon must cut it off once it holds more answers than it may."""
    with Peer.connect(context.socket) as peer:
        question = frames.encode("describe", {}) * 50
        try:
            for _ in range(_NEVER_READ_MAX // 50):
                peer.send_raw(question)
        except (BrokenPipeError, ConnectionResetError):
            return
        except TimeoutError:
            context.ledger.fail("a client that does not read is neither served nor cut off")
            return
    context.ledger.fail(f"{_NEVER_READ_MAX} answers are kept for a client that does not read")


def flood_descriptors(context: Context) -> None:
    """Undeclared, or more than any event may have."""
    count = context.chance.choice([1, frames.MAX_FDS, frames.MAX_FDS + 1, 200])
    with memfd(b"x") as fd, Peer.connect(context.socket) as peer:
        try:
            peer.send("ping", {}, b"", ())
            message = frames.encode("ping", {})
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _ints([fd.fileno()] * count))
            peer.sock.sendmsg([message], [rights])
        except (BrokenPipeError, ConnectionResetError):
            return
        _must_end(context, peer, f"{count} undeclared descriptors")


def _ints(numbers: list[int]) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


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
    {"audio": {"encoding": "pcm_s16le", "sample_rate": -1}},
]


def malformed(context: Context) -> None:
    """Framing that can't be trusted ends the connection; a wrong field does not."""
    with Peer.connect(context.socket) as peer:
        try:
            if context.chance.random() < 0.6:
                peer.send_raw(context.chance.choice(_FATAL))
                _must_end(context, peer, "a malformed frame")
                return
            wrong = context.chance.choice(_FORGIVEN)
            peer.send("transcribe", wrong)
            peer.send("ping")
            told = [event.type for event in (peer.receive(), peer.receive()) if event is not None]
        except (BrokenPipeError, ConnectionResetError):
            return
        if len(told) == 2 and told != ["error", "pong"]:
            context.ledger.fail(f"{json.dumps(wrong)} was answered with {told}")


def crowd_the_door(context: Context) -> None:
    """Connect and say nothing."""
    peers = []
    try:
        for _ in range(50):
            peers.append(Peer.connect(context.socket))
    finally:
        for peer in peers:
            peer.close()


def meddle(context: Context) -> None:
    """Cancel somebody else's job, of which the id is known: nothing comes of it, and nothing is
    told of it."""
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
        context.ledger.fail(f"user {context.uid} was told that it cancelled {ended}", victim)


def spy(context: Context) -> None:
    """Whatever is told to everybody names nobody else's jobs."""
    try:
        with Peer.connect(context.socket) as peer:
            for question in ("status", "describe"):
                peer.send(question)
                told = peer.receive()
                seen = "" if told is None else json.dumps(told.data)
                for uid in set(_USERS_JOB.findall(seen)) - {str(context.uid)}:
                    context.ledger.fail(f"user {context.uid} sees a job of user {uid}: {seen}")
    except (BrokenPipeError, ConnectionResetError):
        return


def _overdue(context: Context, begun: float) -> bool:
    """Whether the daemon must have cut off a frame that does not end by now. Who connects while the
    front is stopped waits in the socket until the watchdog has replaced it: only then is it given
    that much longer."""
    limits = context.ledger.limits
    allowed = limits.frame + limits.grace
    if context.ledger.acted("SIGSTOP", "front", begun):
        allowed += limits.slow_death
    return time.monotonic() - begun > allowed


def _must_end(context: Context, peer: Peer, who: str) -> None:
    """Errors, answers to what came before, and then the end."""
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
            context.ledger.fail(f"{who} was answered with {event.type} {event.data}")
    context.ledger.fail(f"{who} was not cut off")
