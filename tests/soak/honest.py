"""Clients by hand that keep the rules; some cancel, some are in a hurry, some are poison."""

import functools
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asrd
from asrd.errors import ConnectionLost
from asrd.wire.fds import OwnedFd
from tests.soak.clips import Clip
from tests.soak.ledger import Job, Kind, Ledger
from tests.support.raw import Peer, memfd

PCM = {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
FILE = {"encoding": "file"}
MONO = {"rate": 16_000, "width": 2, "channels": 1}
CHUNK = 8_192
_INSISTENCE = 8


@dataclass
class Context:
    """What a client of the crowd knows."""

    chance: random.Random
    ledger: Ledger
    clips: list[Clip]
    socket: str
    # Whose client it is, where that is not the campaign's own user.
    uid: int | None = None

    def clip(self) -> Clip:
        """Mostly a short one: the long ones come first."""
        return self.chance.choice(self.clips[:2] if self.chance.random() < 0.15 else self.clips[2:])

    def open(
        self,
        kind: Kind,
        how: str,
        text: str | None = None,
        timeout: float | None = None,
        library: bool = False,
    ) -> Job:
        """In the ledger, as this client's."""
        return self.ledger.open(kind, how, text, timeout, library, self.uid)


def opened(path: Path) -> OwnedFd:
    return OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


class Line:
    """A connection by hand, with any number of jobs in flight; each event is held to the rules."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.peer = Peer.connect(context.socket)
        self._ledger = context.ledger
        self._open: dict[str, Job] = {}
        self._segments: dict[str, dict[int, str]] = {}

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        for job in self._open.values():
            self._ledger.close(job, "lost")
        self.peer.close()

    def ask(
        self,
        job: Job,
        audio: dict[str, Any],
        payload: bytes = b"",
        fd: OwnedFd | None = None,
        **options: Any,
    ) -> None:
        """Owns `fd`."""
        data = {"job_id": job.id, "audio": audio, **options}
        self.expect(job)
        if job.timeout is not None:
            data["timeout_ms"] = round(1000 * job.timeout)
        try:
            self.peer.send("transcribe", data, payload, () if fd is None else (fd.fileno(),))
        except (BrokenPipeError, ConnectionResetError):
            job.note("could not be sent whole")
        finally:
            if fd is not None:
                fd.close()

    def expect(self, job: Job) -> None:
        """That what is told of it is told here."""
        self._open[job.id] = job

    def cancel(self, job: Job) -> None:
        job.note("cancel sent")
        try:
            self.peer.send("cancel", {"job_id": job.id})
        except (BrokenPipeError, ConnectionResetError):
            job.note("cancel could not be sent")

    def wait_for_answers(self) -> None:
        """Until each job has its one; then the daemon must have nothing more to say."""
        while self._open and self._hear():
            pass
        if not self._open:
            self._nothing_follows()

    def wait_for_event(self) -> None:
        if self._open:
            self._hear()

    def _nothing_follows(self) -> None:
        try:
            self.peer.send("ping", {"text": "last"})
            while (event := self.peer.receive()) is not None and event.type != "pong":
                if event.type != "cancelled":
                    self._ledger.fail(f"{event.type} {event.data} after every answer was given")
        except (BrokenPipeError, ConnectionResetError):
            return

    def _hear(self) -> bool:
        """One event; False at the end of the connection."""
        try:
            event = self.peer.receive()
        except TimeoutError:
            for job in self._open.values():
                self._ledger.fail("silence for 30 s", job)
            event = None
        if event is None:
            while self._open:
                self._ledger.close(self._open.popitem()[1], "lost")
            return False
        known = self._open.get(event.data.get("job_id", ""))
        if known is not None:
            self._told(known, event.type, event.data)
        elif event.type != "cancelled":
            self._ledger.fail(f"{event.type} {event.data}, which nobody waits for")
        return True

    def _told(self, job: Job, kind: str, data: dict[str, Any]) -> None:
        if kind == "accepted":
            if job.accepted is not None:
                self._ledger.fail("accepted twice", job)
            job.accepted = time.monotonic()
        elif kind == "segment":
            self._segments.setdefault(job.id, {})[data["index"]] = data["segment"]["text"]
        elif kind == "transcript":
            self._transcript(job, data)
        elif kind == "error":
            del self._open[job.id]
            if "no room for the audio" in data["text"]:
                # That the full disk was felt: the daemon's log is full as well.
                self._ledger.trick("told that there is no room")
            self._ledger.close(job, data["code"])
        job.note(kind)

    def _transcript(self, job: Job, data: dict[str, Any]) -> None:
        del self._open[job.id]
        if job.accepted is None:
            self._ledger.fail("a transcript before it was accepted", job)
        segments = self._segments.get(job.id)
        # A retry repeats segments under the same index: what was kept is the transcript.
        if segments is not None and "".join(segments.values()).strip() != data["text"]:
            self._ledger.fail(f"segments {segments} of the transcript {data['text']!r}", job)
        self._ledger.close(job, "transcript", data["text"], data["attempts"])


def insistent(ask: Callable[[Context], Job]) -> Callable[[Context], None]:
    """Asks again while the queue is full: a job that is refused at the door shows nothing."""

    @functools.wraps(ask)
    def behaviour(context: Context) -> None:
        for _ in range(_INSISTENCE):
            if ask(context).outcome != "busy":
                return
            time.sleep(context.chance.uniform(0.1, 0.5))

    return behaviour


def one_shot(context: Context) -> None:
    """One or two jobs on one connection, as payload, memfd or file."""
    with Line(context) as line:
        for _ in range(context.chance.randint(1, 2)):
            ask_somehow(line, Kind.INNOCENT)
        line.wait_for_answers()


def one_at_a_time(context: Context) -> None:
    """Who asks little: there must be room for it whoever else asks, and soon its turn."""
    with Line(context) as line:
        job = ask_somehow(line, Kind.INNOCENT)
        line.wait_for_answers()
    if job.outcome == "busy" and not context.ledger.striking("disk"):
        context.ledger.fail("a user's only job was refused because of others'", job)


def ask_somehow(
    line: Line, kind: Kind, clip: Clip | None = None, timeout: float | None = None
) -> Job:
    context = line.context
    clip = clip or context.clip()
    how = context.chance.choice(["payload", "memfd", "file"])
    text = clip.file_text if how == "file" else clip.text
    job = context.open(kind, how, text, timeout)
    options: dict[str, Any] = {"language": clip.language, "stream": context.chance.random() < 0.3}
    if how == "payload":
        line.ask(job, PCM, payload=clip.pcm, **options)
    elif how == "memfd":
        line.ask(job, PCM, fd=memfd(clip.pcm), **options)
    else:
        line.ask(job, FILE, fd=opened(clip.path), **options)
    return job


@insistent
def poison(context: Context) -> Job:
    """CTranslate2 really crashes on this one, with a model whose alignment heads don't exist."""
    clip = context.clip()
    with Line(context) as line:
        job = context.open(Kind.POISON, "file")
        line.ask(job, FILE, fd=opened(clip.path), language=clip.language, word_timestamps=True)
        line.wait_for_answers()
    return job


@insistent
def hurried(context: Context) -> Job:
    with Line(context) as line:
        job = ask_somehow(line, Kind.HURRIED, timeout=context.chance.uniform(0.001, 0.4))
        line.wait_for_answers()
    return job


@insistent
def cancelled(context: Context) -> Job:
    """At whatever moment, from the job's own connection or from another."""
    clip = context.chance.choice(context.clips[:2])
    with Line(context) as line:
        job = ask_somehow(line, Kind.CANCELLED, clip)
        for _ in range(context.chance.randint(0, 3)):
            line.wait_for_event()
        if context.chance.random() < 0.5:
            line.cancel(job)
            line.wait_for_answers()
            return job
        ended = _cancel_elsewhere(context, job)
        line.wait_for_answers()
        if ended and job.outcome not in ("cancelled", "lost"):
            context.ledger.fail("told that it was cancelled, which it was not", job)
    return job


def _cancel_elsewhere(context: Context, job: Job) -> int:
    try:
        with asrd.Client(context.socket) as client:
            return client.cancel(job.id)
    except ConnectionLost as error:
        job.note(f"foreign cancel: {error}")
        return 0


def stream_by_hand(context: Context) -> None:
    """Wyoming's own way, told nothing but the answer."""
    clip = context.clip()
    job = context.open(Kind.INNOCENT, "stream", clip.text)
    with Peer.connect(context.socket) as peer:
        try:
            peer.send("transcribe", {"language": clip.language})
            peer.send("audio-start", MONO)
            for start in range(0, len(clip.pcm), CHUNK):
                peer.send("audio-chunk", MONO, clip.pcm[start : start + CHUNK])
            peer.send("audio-stop")
            event = peer.receive()
        except (BrokenPipeError, ConnectionResetError):
            event = None
        _close_plain(context, job, event)


def _close_plain(context: Context, job: Job, event: Any) -> None:
    if event is None:
        context.ledger.close(job, "lost")
    elif event.type == "transcript":
        context.ledger.close(job, "transcript", event.data["text"])
    else:
        context.ledger.close(job, event.data["code"])
