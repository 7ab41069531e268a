"""The wire by hand: a blocking peer with time limits, for tests that look at every event."""

import json
import os
import socket
import time
from typing import Any

from asrd.demo import SAMPLES
from asrd.wire import fdsocket, frames
from asrd.wire.fds import OwnedFd
from asrd.wire.worker_events import PROTOCOL_VERSION

# Real processes on a busy machine: far above what anything should take, so that only a hang fails.
PATIENCE = 30.0
# A second of audio that a client sends by hand.
SECOND = b"\x00\x01" * 16_000
PCM = {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
# Recordings of the demo, and their texts.
TEXTS = {
    entry["file"]: entry["text"]
    for entry in map(json.loads, (SAMPLES / "references.jsonl").read_text().splitlines())
}
SHORT = "en-4.wav"
LONG = next(name for name in TEXTS if name.startswith("en-minute"))


def unix_socket(path: str) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(PATIENCE)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


class Peer:
    """One end of a connection; events that arrive before the awaited one are kept."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self._buffer = memoryview(bytearray(1 << 18))
        limits = frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, payload=1 << 30)
        self._decoder = frames.Decoder(limits)
        self._kept: list[frames.Frame] = []

    @classmethod
    def connect(cls, path: str) -> "Peer":
        return cls(unix_socket(path))

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

    def ask(self, job_id: str = "a", payload: bytes = SECOND, **options: Any) -> None:
        """Sends a second of PCM as the payload of a `transcribe`."""
        self.send("transcribe", {"job_id": job_id, "audio": PCM, **options}, payload)

    def ask_file(self, job_id: str, sample: str = SHORT, **options: Any) -> None:
        """Passes the descriptor of one of the demo's recordings."""
        asked = {"job_id": job_id, "audio": {"encoding": "file"}, "language": "en", **options}
        with open(SAMPLES / sample, "rb") as file:
            self.send("transcribe", asked, fds=(file.fileno(),))

    def start_long(self, job_id: str = "a", **options: Any) -> None:
        """Sends the demo's longest recording, and waits until it makes progress."""
        self.ask_file(job_id, LONG, stream=True, **options)
        self.expect("accepted")
        self.expect("progress")

    def take_job(self) -> tuple[dict[str, Any], OwnedFd]:
        """Returns the next job of a worker and its descriptor."""
        event = self.receive()
        assert event is not None and event.type == "job", event
        (fd,) = event.fds
        return event.data, fd

    def start_job(self) -> dict[str, Any]:
        """Returns the next job of a worker, and drops its audio."""
        job, fd = self.take_job()
        fd.close()
        return job

    def serve_job(self, text: str = "hello") -> dict[str, Any]:
        """Returns the next job of a worker, answered at once."""
        job = self.start_job()
        self.send("done", done(job["key"], text))
        return job

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

    def transcript(self, job_id: str = "a") -> dict[str, Any]:
        """The data of the job's transcript, which is its answer."""
        event = self.answer(job_id)
        assert event.type == "transcript", event.data
        return event.data

    def at_end(self) -> bool:
        """True if the connection has ended, with nothing unread before that."""
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


def until(client: Peer, kind: str) -> list[frames.Frame]:
    """Returns the next events, up to the first of that kind."""
    events = list[frames.Frame]()
    while not events or events[-1].type != kind:
        event = client.receive()
        assert event is not None, f"the connection ended before {kind}"
        events.append(event)
    return events


HELLO = {
    "version": PROTOCOL_VERSION,
    "pid": os.getpid(),
    "model": "fake",
    "languages": ["en"],
    "device": "cpu",
    "compute_type": "int8",
    "cpu_threads": 2,
    "cores": 4,
    "load_seconds": 0.1,
    "speech": True,
}


def window(key: int, text: str, number: int = 1, **checkpoint: Any) -> dict[str, Any]:
    """The window of a job with that number is done, the first being 1: one segment."""
    end = 30.0 * number
    return {
        "key": key,
        "text": text,
        "segments": [{"id": number, "start": end - 30, "end": end, "text": text}],
        "checkpoint": {"frame": 3000 * number, "seconds": end, "segments": number, **checkpoint},
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
