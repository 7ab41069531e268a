"""A daemon that misbehaves on request: threads behind a real Unix socket, speaking asrd.wire.

    with FakeDaemon(path, [busy(5), hang_up, answer("hello")]) as daemon: ...

Each `transcribe` gets the next behaviour of the list; the last one repeats.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrd.wire import fdsocket, frames

# Long enough for a loaded machine; a test that passes never waits this long.
PATIENCE = 20.0
PAYLOAD_MAX = 1 << 20

STATUS: dict[str, Any] = {"state": "ok", "version": "1", "workers": []}
INFO: dict[str, Any] = {"asr": [{"name": "asrd", "models": [{"name": "demo"}]}]}


class Payload:
    def __init__(self) -> None:
        self.data = bytearray()
        self.write = self.data.extend

    def close(self) -> None:
        pass


@dataclass
class Request:
    type: str
    data: dict[str, Any]
    connection: int
    audio: bytes | None = None


@dataclass
class Peer:
    """A connection of a client."""

    sock: socket.socket
    number: int
    open_jobs: set[str] = field(default_factory=set)

    def send(self, kind: str, /, **data: Any) -> None:
        self.raw(frames.encode(kind, data))

    def raw(self, data: bytes) -> None:
        with suppress(OSError):
            self.sock.sendall(data)

    def hang_up(self) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


Behaviour = Callable[[Peer, dict[str, Any]], None]
# The `others` of a daemon that would serve a request.
READY: dict[str, Behaviour] = {
    "status": lambda peer, data: peer.send(
        "status", **{**STATUS, "workers": [{"name": "0", "state": "ready"}], "queue": {"max": 1}}
    )
}


def segment(index: int, text: str) -> dict[str, Any]:
    return {"id": index, "start": float(index), "end": index + 1.0, "text": text}


def say(peer: Peer, request: dict[str, Any], texts: Sequence[str]) -> None:
    """Sends `accepted`; for a stream also a `segment` and a `progress` for each text."""
    job_id = request["job_id"]
    peer.send("accepted", job_id=job_id, queue_depth=0)
    if not request["stream"]:
        return
    for index, text in enumerate(texts):
        peer.send("segment", job_id=job_id, index=index, segment=segment(index, text))
        done, whole = index + 1.0, float(len(texts))
        peer.send("progress", job_id=job_id, audio_seconds_done=done, audio_seconds=whole)


def transcript(request: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    return {
        "text": " ".join(texts),
        "job_id": request["job_id"],
        "language": "en",
        "segments": [segment(index, text) for index, text in enumerate(texts)],
    }


def answer(*texts: str) -> Behaviour:
    def behave(peer: Peer, request: dict[str, Any]) -> None:
        say(peer, request, texts)
        peer.open_jobs.discard(request["job_id"])
        peer.send("transcript", **transcript(request, texts))

    return behave


def answer_with(*segments: dict[str, Any]) -> Behaviour:
    """Answers with these segments, and sends them to a stream."""

    def behave(peer: Peer, request: dict[str, Any]) -> None:
        job_id = request["job_id"]
        peer.send("accepted", job_id=job_id, queue_depth=0)
        for index, each in enumerate(segments if request["stream"] else ()):
            peer.send("segment", job_id=job_id, index=index, segment=each)
        peer.open_jobs.discard(job_id)
        text = "".join(each["text"] for each in segments).strip()
        peer.send("transcript", **{**transcript(request, ()), "text": text, "segments": segments})

    return behave


def fail(code: str, text: str = "as asked", **more: Any) -> Behaviour:
    def behave(peer: Peer, request: dict[str, Any]) -> None:
        peer.open_jobs.discard(request["job_id"])
        peer.send("error", text=text, code=code, job_id=request["job_id"], **more)

    return behave


def busy(retry_after_ms: int) -> Behaviour:
    return fail("busy", retryable=True, retry_after_ms=retry_after_ms)


def never(peer: Peer, request: dict[str, Any]) -> None:
    """Accepts the job and never answers, unless it is cancelled."""
    peer.send("accepted", job_id=request["job_id"])


def begin(*texts: str) -> Behaviour:
    """Sends some segments and no transcript."""
    return lambda peer, request: say(peer, request, texts)


def hang_up(peer: Peer, request: dict[str, Any]) -> None:
    peer.hang_up()


def hang_up_after(*texts: str) -> Behaviour:
    """Sends some segments and half of the transcript, then hangs up."""

    def behave(peer: Peer, request: dict[str, Any]) -> None:
        say(peer, request, texts)
        whole = frames.encode("transcript", transcript(request, texts))
        peer.raw(whole[: len(whole) // 2])
        peer.hang_up()

    return behave


def raw(data: bytes) -> Behaviour:
    return lambda peer, request: peer.raw(data)


def refuse_connection(code: str, **more: Any) -> Behaviour:
    """Sends an error without a job, as for one connection too many, then hangs up."""

    def behave(peer: Peer, request: dict[str, Any]) -> None:
        peer.send("error", text="too many", code=code, **more)
        peer.hang_up()

    return behave


class FakeDaemon:
    """`requests` in the order of arrival; `hang_ups` has the numbers of ended connections."""

    def __init__(
        self,
        path: Path,
        behaviours: Sequence[Behaviour] = (),
        *,
        others: dict[str, Behaviour] | None = None,
    ) -> None:
        self.path = str(path)
        self.requests: list[Request] = []
        self.hang_ups: list[int] = []
        self._behaviours = list(behaviours)
        self._others: dict[str, Behaviour] = {
            "ping": lambda peer, data: peer.send("pong", **data),
            "status": lambda peer, data: peer.send("status", **STATUS),
            "describe": lambda peer, data: peer.send("info", **INFO),
            "cancel": self._cancel,
        } | (others or {})
        self._changed = threading.Condition()
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "FakeDaemon":
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes `accept`; `close` would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        for peer in self._peers:
            peer.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        Path(self.path).unlink()

    @property
    def jobs(self) -> list[Request]:
        return [request for request in self.requests if request.type == "transcribe"]

    def wait_for(self, kind: str, count: int = 1) -> list[Request]:
        """Waits for `count` requests of a type, and returns all of them."""
        return self._wait(lambda: [r for r in self.requests if r.type == kind], count)

    def wait_for_hang_up(self, count: int = 1) -> list[int]:
        return self._wait(lambda: self.hang_ups, count)

    def _wait(self, look: Callable[[], list[Any]], count: int) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(look()) >= count, PATIENCE), self.requests
            return look()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(sock, len(self._peers))
            self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        decoder = frames.Decoder(frames.FrameLimits(payload=PAYLOAD_MAX), lambda frame: Payload())
        buffer = memoryview(bytearray(fdsocket.READ_SIZE))
        with peer.sock:
            while True:
                try:
                    count, fds = fdsocket.receive_into(peer.sock, buffer)
                except OSError:
                    break
                if not count:
                    break
                decoder.receive(buffer[:count], fds)
                while (event := decoder.next_frame()) is not None:
                    self._handle(peer, event)
        decoder.close()
        with self._changed:
            self.hang_ups.append(peer.number)
            self._changed.notify_all()

    def _handle(self, peer: Peer, event: frames.Frame) -> None:
        audio = bytes(event.payload.data) if isinstance(event.payload, Payload) else None
        if event.fds:
            fd = event.fds[0].fileno()
            audio = os.pread(fd, os.fstat(fd).st_size, 0)
        event.close()
        with self._changed:
            self.requests.append(Request(event.type, event.data, peer.number, audio))
            if event.type == "transcribe":
                peer.open_jobs.add(event.data["job_id"])
                several = len(self._behaviours) > 1
                behave = self._behaviours.pop(0) if several else self._behaviours[0]
            else:
                behave = self._others[event.type]
        # The request is recorded before its answer is sent; waiting tests see it after.
        behave(peer, event.data)
        with self._changed:
            self._changed.notify_all()

    def _cancel(self, peer: Peer, data: dict[str, Any]) -> None:
        job_id = data["job_id"]
        owners = [other for other in self._peers if job_id in other.open_jobs]
        for owner in owners:
            owner.open_jobs.discard(job_id)
            owner.send("error", text="cancelled", code="cancelled", job_id=job_id)
        if peer not in owners:
            peer.send("cancelled", job_id=job_id, jobs=len(owners))
