"""Clients in a loop, inside the machine; each request has a connection of its own.

    loadgen.py FILE CLIENTS      until stdin ends; then prints one JSON object

Nothing is retried, as asrd's own client would: each failure must show.
"""

import collections
import json
import socket
import sys
import threading
import time

sys.path.append("/usr/lib/asrd/vendor")

from asrd.wire import frames

SOCKET = "/run/asrd/asrd.sock"
FINAL = ("transcript", "error")


def request(audio: bytes) -> frames.Frame:
    decoder = frames.Decoder(frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(SOCKET)
        data = {"audio": {"encoding": "file"}, "beam_size": 1, "language": "en"}
        sock.sendall(frames.encode("transcribe", data, payload_length=len(audio)) + audio)
        while True:
            event = decoder.next_frame()
            if event is not None and event.type in FINAL:
                return event
            if event is None:
                received = sock.recv(65536)
                if not received:
                    raise ConnectionError("the connection ended before the answer")
                decoder.receive(received)


class Load:
    def __init__(self, audio: bytes) -> None:
        self.audio = audio
        self.stop = threading.Event()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.workers: collections.Counter[str] = collections.Counter()
        self.texts: set[str] = set()
        self.retried = 0
        self.longest = 0.0

    def client(self) -> None:
        while not self.stop.is_set():
            outcome = self._outcome()
            self.outcomes[outcome] += 1
            if outcome != "transcript":
                # One refused connection is enough to fail the test.
                self.stop.wait(0.2)

    def _outcome(self) -> str:
        start = time.monotonic()
        try:
            event = request(self.audio)
        except OSError as error:
            return f"{type(error).__name__}: {error}"
        self.longest = max(self.longest, time.monotonic() - start)
        if event.type == "error":
            return f"{event.data['code']}: {event.data['text']}"
        self.workers[event.data["worker"]] += 1
        self.texts.add(event.data["text"])
        self.retried += event.data["attempts"] > 1
        return "transcript"


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        load = Load(file.read())
    threads = [threading.Thread(target=load.client) for _ in range(int(sys.argv[2]))]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    load.stop.set()
    for thread in threads:
        thread.join()
    found = {key: value for key, value in vars(load).items() if key not in ("audio", "stop")}
    json.dump(found, sys.stdout, default=sorted)


if __name__ == "__main__":
    main()
