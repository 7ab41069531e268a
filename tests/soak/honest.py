"""Clients by hand that keep the rules. Some cancel, some set tiny timeouts, some send poison."""

import functools
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asrd
from asrd.errors import ConnectionLost
from asrd.wire import frames
from asrd.wire.fds import OwnedFd
from tests.soak.clips import Clip, Clips
from tests.soak.ledger import Ledger
from tests.soak.oracle import Job, Kind
from tests.support.raw import PCM, Peer, memfd

FILE = {"encoding": "file"}
MONO = {"rate": 16_000, "width": 2, "channels": 1}
CHUNK = 8_192
CUT_OFF = (BrokenPipeError, ConnectionResetError)
_REQUESTS_MAX = 8
# How long a client waits for the next event: far above what any promise allows.
HANG_SECONDS = 180.0
_LONG_SHARE = 0.1
# A whole window: the speech is then heard as it is without the silence.
_SILENCE = bytes(2 * 16_000 * 30)


@dataclass
class Context:
    """The knowledge of one client of the crowd."""

    chance: random.Random
    ledger: Ledger
    clips: Clips
    socket: str
    # The client's user, None for the campaign's own.
    uid: int | None = None

    def clip(self) -> Clip:
        """One of the recordings, mostly a short one."""
        return self.long_clip() if self.chance.random() < _LONG_SHARE else self.plain_clip()

    def plain_clip(self) -> Clip:
        return self.chance.choice(self.clips.plain)

    def long_clip(self) -> Clip:
        return self.chance.choice(self.clips.long)

    def open(
        self,
        kind: Kind,
        how: str,
        clip: Clip | None = None,
        as_file: bool = False,
        timeout: float | None = None,
        library: bool = False,
    ) -> Job:
        """Opens a job of this client in the ledger. The text of `clip` is the right one, except for
        poison."""
        text, windows = None, 1
        if clip is not None:
            windows = clip.windows
            if kind is not Kind.POISON:
                text = clip.file_text if as_file else clip.text
        return self.ledger.open(kind, how, text, timeout, library, self.uid, windows)

    def connect(self) -> Peer:
        peer = Peer.connect(self.socket)
        peer.sock.settimeout(HANG_SECONDS)
        return peer

    def close(self, job: Job, event: frames.Frame | None) -> None:
        """Closes a job with the event that answers it; None is the end of the connection."""
        if event is None:
            self.ledger.close(job, "lost")
        elif event.type == "transcript":
            self.ledger.close(job, "transcript", event.data["text"], event.data.get("attempts", 1))
        else:
            self.ledger.close(job, event.data["code"])


class Line:
    """A connection by hand with any number of jobs; checks each event against the rules."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.peer = context.connect()
        self._ledger = context.ledger
        self._open: dict[str, Job] = {}
        # The segments and the attempts that sent them, by the ids of the jobs that stream.
        self._segments: dict[str, list[dict[str, Any]]] = {}
        self._attempt: dict[str, int] = {}

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._lose_all()
        self.peer.close()

    def _lose_all(self) -> None:
        while self._open:
            self._ledger.close(self._open.popitem()[1], "lost")

    def ask(
        self,
        job: Job,
        audio: dict[str, Any],
        payload: bytes = b"",
        fd: OwnedFd | None = None,
        **options: Any,
    ) -> None:
        """Sends the request; closes `fd`."""
        data = {"job_id": job.id, "audio": audio, **options}
        self.expect(job)
        if options.get("stream"):
            self._segments[job.id] = []
        if job.timeout is not None:
            data["timeout_ms"] = round(1000 * job.timeout)
        try:
            self.peer.send("transcribe", data, payload, () if fd is None else (fd.fileno(),))
        except CUT_OFF:
            job.note("could not be sent whole")
        finally:
            if fd is not None:
                fd.close()

    def expect(self, job: Job) -> None:
        """Expects the job's events on this connection."""
        self._open[job.id] = job

    def cancel(self, job: Job) -> None:
        job.note("cancel sent")
        try:
            self.peer.send("cancel", {"job_id": job.id})
        except CUT_OFF:
            job.note("cancel could not be sent")

    def wait_for_answers(self) -> None:
        """Waits until each job has its answer; no event may come after the last one."""
        while self._open and self._receive():
            pass
        if not self._open:
            with suppress(*CUT_OFF):
                self._expect_silence()

    def wait_for_event(self) -> None:
        if self._open:
            self._receive()

    def _expect_silence(self) -> None:
        self.peer.send("ping", {"text": "last"})
        while (event := self.peer.receive()) is not None and event.type != "pong":
            if event.type != "cancelled":
                self._ledger.fail(f"{event.type} {event.data} after every answer was given")

    def _receive(self) -> bool:
        """Takes one event; False at the end of the connection."""
        try:
            event = self.peer.receive()
        except TimeoutError:
            for job in self._open.values():
                self._ledger.fail(f"silence for {HANG_SECONDS:g} s", job)
            event = None
        if event is None:
            self._lose_all()
            return False
        known = self._open.get(event.data.get("job_id", ""))
        if known is not None:
            self._check(known, event)
        elif event.type != "cancelled":
            self._ledger.fail(f"{event.type} {event.data}, which no job expects")
        return True

    def _check(self, job: Job, event: frames.Frame) -> None:
        data = event.data
        if event.type == "accepted":
            if job.accepted is not None:
                self._ledger.fail("accepted twice", job)
            job.accepted = time.monotonic()
        elif event.type == "segment":
            self._check_segment(job, data)
        elif event.type == "transcript":
            self._check_transcript(job, data)
        elif event.type == "error" and data["code"] == "busy" and not data.get("retry_after_ms"):
            self._ledger.fail("busy without a time to come back", job)
        elif event.type == "error" and "no room for the audio" in data["text"]:
            # The only evidence that the full disk had an effect: the log is on a full disk too.
            self._ledger.trick("no room for the audio")
        if event.type in ("transcript", "error"):
            del self._open[job.id]
            self.context.close(job, event)
        job.note(event.type)

    def _check_segment(self, job: Job, data: dict[str, Any]) -> None:
        """No segment comes twice, none is left out, and no attempt takes over from a later one."""
        index, attempt = data["index"], data["attempt"]
        segments, last = self._segments.get(job.id), self._attempt.get(job.id, attempt)
        if segments is None:
            self._ledger.fail("a segment that nobody asked for", job)
            return
        if index != len(segments) or attempt < last:
            what = f"segment {index} of attempt {attempt}"
            self._ledger.fail(f"{what} after {len(segments)} segments, attempt {last}", job)
        if attempt > last:
            self._ledger.trick("a stream went on after its worker's end")
        self._attempt[job.id] = attempt
        segments.append(data["segment"])

    def _check_transcript(self, job: Job, data: dict[str, Any]) -> None:
        if job.accepted is None:
            self._ledger.fail("a transcript before it was accepted", job)
        text, segments = data["text"], data["segments"]
        if "".join(segment["text"] for segment in segments).strip() != text:
            self._ledger.fail(f"segments {segments} of the transcript {text!r}", job)
        if self._segments.get(job.id, segments) != segments:
            self._ledger.fail(f"{self._segments[job.id]} were streamed, {segments} sent", job)


def insistent(ask: Callable[[Context], Job]) -> Callable[[Context], None]:
    """Repeats a request while the queue is full: a refused job tests nothing."""

    @functools.wraps(ask)
    def behaviour(context: Context) -> None:
        for _ in range(_REQUESTS_MAX):
            if ask(context).outcome != "busy":
                return
            time.sleep(context.chance.uniform(0.1, 0.5))

    return behaviour


def one_shot(context: Context) -> None:
    """Sends one or two jobs on one connection, as payload, memfd or file."""
    with Line(context) as line:
        for _ in range(context.chance.randint(1, 2)):
            ask_somehow(line, Kind.INNOCENT)
        line.wait_for_answers()


def one_at_a_time(context: Context) -> None:
    """Sends one job, as a user who never has two: the queue must have room for it, no matter how
    many jobs the other users send."""
    with Line(context) as line:
        job = ask_somehow(line, Kind.INNOCENT)
        line.wait_for_answers()
    if job.outcome == "busy" and not context.ledger.striking("disk"):
        context.ledger.fail("a user's only job was refused because of others'", job)


def hog(context: Context) -> None:
    """Sends long recordings, several at once."""
    with Line(context) as line:
        for _ in range(context.chance.randint(1, 3)):
            ask_somehow(line, Kind.INNOCENT, context.long_clip())
        line.wait_for_answers()


def ask_somehow(
    line: Line, kind: Kind, clip: Clip | None = None, timeout: float | None = None
) -> Job:
    context = line.context
    clip = clip or context.clip()
    how = context.chance.choice(["payload", "memfd", "file"])
    job = context.open(kind, how, clip, as_file=how == "file", timeout=timeout)
    options: dict[str, Any] = {**clip.options, "stream": context.chance.random() < 0.4}
    if how == "payload":
        line.ask(job, clip.format, payload=clip.pcm, **options)
    elif how == "memfd":
        line.ask(job, clip.format, fd=memfd(clip.pcm), **options)
    else:
        line.ask(job, FILE, fd=_opened(clip.path), **options)
    return job


def _opened(path: Path) -> OwnedFd:
    return OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


@insistent
def poison(context: Context) -> Job:
    """Sends a job that really crashes CTranslate2, whose model has alignment heads that do not
    exist: in its first window, or after one that is silent."""
    clip = context.plain_clip()
    options = {**clip.options, "word_timestamps": True}
    with Line(context) as line:
        if context.chance.random() < 0.5:
            job = context.open(Kind.POISON, "file", clip)
            line.ask(job, FILE, fd=_opened(clip.path), **options)
        else:
            job = context.open(Kind.POISON, "after silence", clip)
            line.ask(job, PCM, payload=_SILENCE + clip.pcm, **options)
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
    """Cancels a job at a random moment, from its own connection or from another one."""
    clip = context.long_clip()
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
            context.ledger.fail("a cancel was confirmed that did not happen", job)
    return job


def _cancel_elsewhere(context: Context, job: Job) -> int:
    try:
        with asrd.Client(context.socket) as client:
            return client.cancel(job.id)
    except ConnectionLost as error:
        job.note(f"foreign cancel: {error}")
        return 0


def stream_by_hand(context: Context) -> None:
    """Streams a recording by pure Wyoming, whose only answer is the transcript."""
    clip = context.plain_clip()
    job = context.open(Kind.INNOCENT, "stream", clip)
    with context.connect() as peer:
        try:
            peer.send("transcribe", {"language": clip.language})
            peer.send("audio-start", MONO)
            for start in range(0, len(clip.pcm), CHUNK):
                peer.send("audio-chunk", MONO, clip.pcm[start : start + CHUNK])
            peer.send("audio-stop")
            event = peer.receive()
        except CUT_OFF:
            event = None
        context.close(job, event)
