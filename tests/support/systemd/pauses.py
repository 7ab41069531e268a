"""A client that pings on one connection and has long jobs on another, inside the machine.

    pauses.py FILE SECONDS      prints a line when the first job has a segment; goes on until stdin
                                ends, and prints one JSON object

Each connection is made once: whatever restarts, it must stay.
"""

import json
import socket
import sys
import threading
import time
import wave
from typing import Any

sys.path.append("/usr/lib/asrd/vendor")

from asrd.wire import frames

SOCKET = "/run/asrd/asrd.sock"
PCM = {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
OPTIONS = {"audio": PCM, "beam_size": 1, "language": "en", "temperature": 0.0, "stream": True}


class Client:
    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(SOCKET)
        self.decoder = frames.Decoder(frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA))

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


def longest_pause(begun: threading.Event, end: threading.Event) -> float:
    client, longest = Client(), 0.0
    begun.wait()
    while not end.is_set():
        start = time.monotonic()
        client.send("ping", {})
        client.receive()
        longest = max(longest, time.monotonic() - start)
        time.sleep(0.01)
    return longest


def recording(path: str, seconds: float) -> bytes:
    with wave.open(path) as file:
        once: bytes = file.readframes(file.getnframes()) + bytes(16_000)
    return once * int(seconds * 32_000 / len(once))


def main() -> None:
    audio = recording(sys.argv[1], float(sys.argv[2]))
    undisturbed = Client().transcribe(audio, threading.Event())
    begun, end, found = threading.Event(), threading.Event(), dict[str, Any]()

    def ping() -> None:
        found["longest_pause"] = longest_pause(begun, end)

    pings = threading.Thread(target=ping)
    pings.start()

    def announce() -> None:
        begun.wait()
        print("begun", flush=True)

    threading.Thread(target=announce).start()
    closed = threading.Event()

    def wait_for_stdin() -> None:
        sys.stdin.read()
        closed.set()

    threading.Thread(target=wait_for_stdin).start()
    client, attempts = Client(), list[int]()
    while not (attempts and closed.is_set()):
        answer = client.transcribe(audio, begun)
        if answer["type"] != "transcript" or answer["text"] != undisturbed["text"]:
            sys.exit(f"not the undisturbed text: {answer}")
        if answer["numbers"] != list(range(len(answer["numbers"]))):
            sys.exit(f"segments are missing, or came twice: {answer['numbers']}")
        attempts.append(answer["attempts"])
    end.set()
    pings.join()
    found["attempts"] = attempts
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
