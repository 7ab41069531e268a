"""A client that pings, asks for the status on new connections, sends commands of 3 s, and has long
jobs, inside the machine.

    pauses.py FILE SECONDS      prints a line when the first job has a segment; goes on until stdin
                                ends, and prints one JSON object

Each line on stdin begins a phase: each has its longest pauses. The other connections are made once:
whatever restarts, they must stay.
"""

import contextlib
import json
import socket
import sys
import threading
import time
import wave
from collections.abc import Callable
from functools import partial
from typing import Any

sys.path.append("/usr/lib/asrd/vendor")

from asrd.wire import frames

SOCKET, STATUS = "/run/asrd/asrd.sock", "/run/asrd/status.sock"
PCM = {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
_COMMAND_BYTES = 3 * 32_000
OPTIONS = {"audio": PCM, "beam_size": 1, "language": "en", "temperature": 0.0, "stream": True}


class Client:
    def __init__(self, path: str = SOCKET) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        limits = frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False)
        self.decoder = frames.Decoder(limits)

    def send(self, kind: str, data: dict[str, Any], payload: bytes = b"") -> None:
        self.sock.sendall(frames.encode(kind, data, payload_length=len(payload)) + payload)

    def receive(self) -> frames.Frame:
        while (event := self.decoder.next_frame()) is None:
            received = self.sock.recv(65536)
            if not received:
                raise ConnectionError("the connection ended")
            self.decoder.receive(received)
        return event

    def transcribe(self, audio: bytes, begun: threading.Event) -> dict[str, Any]:
        """Returns the answer, with the numbers of the segments as they came."""
        self.send("transcribe", OPTIONS, audio)
        numbers = []
        while (event := self.receive()).type not in ("transcript", "error"):
            if event.type == "segment":
                numbers.append(event.data["index"])
                begun.set()
        return {**event.data, "type": event.type, "numbers": numbers}


class Pauses:
    """The longest time of each thing that a client does, by phase; in seconds."""

    def __init__(self) -> None:
        self.phase = ""
        self.begun, self.end = threading.Event(), threading.Event()
        self.longest: dict[str, dict[str, float]] = {}
        self.problems: list[str] = []

    def measure(self, name: str, do: Callable[[], object]) -> None:
        """Does it again and again, from the first segment to the end. What runs when a phase begins
        counts there."""
        self.begun.wait()
        while not self.end.is_set():
            start = time.monotonic()
            try:
                do()
            except OSError as error:
                self.problems.append(f"{name}: {type(error).__name__}: {error}")
                return
            found = self.longest.setdefault(self.phase, {})
            found[name] = max(found.get(name, 0.0), time.monotonic() - start)
            time.sleep(0.01)

    def follow_phases(self) -> None:
        self.begun.wait()
        print("begun", flush=True)
        for line in sys.stdin:
            self.phase = line.strip()


def ping(client: Client) -> None:
    client.send("ping", {})
    client.receive()


def look() -> None:
    """The status, on a new connection."""
    with contextlib.closing(Client(STATUS).sock) as sock:
        sock.sendall(frames.encode("status", {}))
        if not sock.recv(1):
            raise ConnectionError("the connection ended")


def recording(path: str, seconds: float) -> bytes:
    with wave.open(path) as file:
        once: bytes = file.readframes(file.getnframes()) + bytes(16_000)
    return once * int(seconds * 32_000 / len(once))


def main() -> None:
    audio = recording(sys.argv[1], float(sys.argv[2]))
    undisturbed = Client().transcribe(audio, threading.Event())
    pauses, pinger = Pauses(), Client()
    measured = {
        "ping": partial(ping, pinger),
        "status": look,
        "command": partial(Client().transcribe, audio[:_COMMAND_BYTES], threading.Event()),
    }
    phases = threading.Thread(target=pauses.follow_phases, daemon=True)
    threads = [
        threading.Thread(target=pauses.measure, args=each, daemon=True) for each in measured.items()
    ]
    for thread in (phases, *threads):
        thread.start()
    client, attempts = Client(), list[int]()
    while not attempts or phases.is_alive():
        answer = client.transcribe(audio, pauses.begun)
        if answer["type"] != "transcript" or answer["text"] != undisturbed["text"]:
            sys.exit(f"not the undisturbed text: {answer}")
        if answer["numbers"] != list(range(len(answer["numbers"]))):
            sys.exit(f"segments are missing, or came twice: {answer['numbers']}")
        attempts.append(answer["attempts"])
    pauses.end.set()
    for thread in threads:
        thread.join()
    if pauses.problems:
        sys.exit("\n".join(pauses.problems))
    json.dump({"longest": pauses.longest, "attempts": attempts}, sys.stdout)


if __name__ == "__main__":
    main()
