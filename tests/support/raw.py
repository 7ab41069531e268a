"""The wire by hand: a blocking peer with time limits, for tests that look at every event."""

import os
import socket
import time
from typing import Any

from asrd.wire import fdsocket, frames
from asrd.wire.fds import OwnedFd
from asrd.wire.worker_events import PROTOCOL_VERSION

# Real processes on a busy machine: far above what anything should take, so that only a hang fails.
PATIENCE = 30.0


class Peer:
    """One end of a connection; `events` that came while another was waited for are kept."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self._buffer = memoryview(bytearray(1 << 18))
        limits = frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, payload=1 << 30)
        self._decoder = frames.Decoder(limits)
        self._kept: list[frames.Frame] = []

    @classmethod
    def connect(cls, path: str) -> "Peer":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(PATIENCE)
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def send(
        self,
        kind: str,
        data: dict[str, Any] | None = None,
        payload: bytes = b"",
        fds: tuple[int, ...] = (),
    ) -> None:
        message = frames.encode(kind, data, len(payload), len(fds))
        fdsocket.send(self.sock, [message], fds)
        if payload:
            self.sock.sendall(payload)

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self) -> frames.Frame | None:
        """The next event in order of arrival, None at the end of the connection."""
        return self._kept.pop(0) if self._kept else self._receive()

    def _receive(self) -> frames.Frame | None:
        while (event := self._decoder.next_frame()) is None:
            try:
                count, fds = fdsocket.receive_into(self.sock, self._buffer)
            except ConnectionResetError:
                return None
            if count == 0:
                return None
            self._decoder.receive(self._buffer[:count], fds)
        return event

    def expect(self, kind: str) -> dict[str, Any]:
        """The next event, which must be of this kind; its data."""
        event = self.receive()
        assert event is not None, f"the connection ended instead of {kind}"
        assert event.type == kind, f"{event.type} {event.data} instead of {kind}"
        event.close()
        return event.data

    def receive_kind(self) -> str | None:
        """The type of the next event, which is of no other interest."""
        event = self.receive()
        if event is None:
            return None
        event.close()
        return event.type

    def take_job(self) -> tuple[dict[str, Any], OwnedFd]:
        """As a worker: the next job and its descriptor."""
        event = self.receive()
        assert event is not None and event.type == "job", event
        (fd,) = event.fds
        return event.data, fd

    def answer(self, job_id: str) -> frames.Frame:
        """The terminal event of a job, whatever comes before it; other jobs' events are kept."""
        later = []
        try:
            while True:
                event = self.receive()
                assert event is not None, "the connection ended before the answer"
                if event.data.get("job_id") != job_id:
                    later.append(event)
                elif event.type in ("transcript", "error"):
                    return event
        finally:
            self._kept[:0] = later

    def at_end(self) -> bool:
        """Whether the peer has closed, with nothing unread before that."""
        return self.receive() is None

    def close(self) -> None:
        self._decoder.close()
        for event in self._kept:
            event.close()
        self.sock.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def memfd(data: bytes) -> OwnedFd:
    fd = OwnedFd(os.memfd_create("test", os.MFD_CLOEXEC))
    os.write(fd.fileno(), data)
    return fd


def status(path: str) -> dict[str, Any]:
    with Peer.connect(path) as peer:
        peer.send("status")
        return peer.expect("status")


def wait_for(what: str, condition: Any, patience: float = PATIENCE) -> Any:
    """Poll until `condition()` is true; its value."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {patience} s in vain for: {what}")


HELLO = {
    "version": PROTOCOL_VERSION,
    "pid": os.getpid(),
    "model": "fake",
    "languages": ["en"],
    "device": "cpu",
    "compute_type": "int8",
    "load_seconds": 0.1,
}


def done(key: int, text: str = "hello") -> dict[str, Any]:
    return {
        "key": key,
        "text": text,
        "language": "en",
        "language_probability": 1.0,
        "audio_seconds": 1.0,
        "run_seconds": 0.1,
        "segments": [],
    }
