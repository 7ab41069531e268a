"""A load generator that takes little of the cores it shares: one thread, epoll, requests encoded
once, answers parsed no further than needed.

    python -m tests.benchmarks.loadgen asrd|wyoming SOCKET CLIENTS SECONDS AUDIO

Each client asks, waits for the answer, and asks again; who is refused comes back after
`retry_after_ms`. Prints a Tally as JSON, its own processor time included.
"""

import argparse
import contextlib
import errno
import heapq
import itertools
import json
import os
import select
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event

from asrd.errors import Code
from asrd.wire import frames

_REQUEST = {
    "audio": {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1},
    "language": "en",
    "temperature": 0.0,
}
# After a connection that failed, in seconds.
_PAUSE = 0.05
_CROWD_SECONDS = 1.0
_READ_SIZE = 1 << 16


@dataclass
class Tally:
    """Seconds of each answer and each refusal (`crowd`: those asked in the first second, when all
    connect at once); what was lost (a failure other than `busy`, or a connection that ended), and
    connections that could not be made."""

    done: list[float] = field(default_factory=list)
    crowd: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    lost: int = 0
    unconnected: int = 0
    processor_seconds: float = 0.0


class Answer(NamedTuple):
    """`pause`: seconds to the next request, of one that was refused."""

    good: bool
    pause: float | None = None


class Protocol(NamedTuple):
    request: bytes
    fds: list[int]
    one_request_a_connection: bool


def protocol(name: str, audio: Path) -> Protocol:
    data = audio.read_bytes()
    if name == "asrd":
        request = frames.encode("transcribe", _REQUEST, fds=1)
        # Open for as long as the program runs; each request sends it again.
        return Protocol(request, [os.open(audio, os.O_RDONLY)], False)
    return Protocol(_stream(data), [], True)


def _stream(data: bytes) -> bytes:
    audio = {"rate": 16_000, "width": 2, "channels": 1}
    events = [Transcribe(language="en").event(), AudioStart(**audio).event()]
    for start in range(0, len(data), 2048):
        events.append(AudioChunk(audio=data[start : start + 2048], **audio).event())
    return b"".join(map(_encode, [*events, AudioStop().event()]))


def _encode(event: Event) -> bytes:
    payload = event.payload or b""
    return frames.encode(event.type, event.data, len(payload)) + payload


def _parse_event(buffer: bytearray) -> Answer | None:
    while (end := buffer.find(b"\n") + 1) > 0:
        header = orjson.loads(buffer[:end])
        after = end + header.get("data_length", 0)
        if len(buffer) < after + header.get("payload_length", 0):
            return None
        data = bytes(buffer[end:after])
        del buffer[: after + header.get("payload_length", 0)]
        if header["type"] == "transcript":
            return Answer(True)
        if header["type"] == "error":
            return Answer(False, _retry_after(orjson.loads(data)))
    return None


def _retry_after(error: dict[str, Any]) -> float | None:
    busy = error["code"] == Code.BUSY
    return float(error["retry_after_ms"]) / 1000 if busy else None


class _Client:
    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.started = 0.0


class Load:
    def __init__(
        self, path: str, spoken: Protocol, clients: int, crowd_seconds: float = _CROWD_SECONDS
    ) -> None:
        self.tally = Tally()
        self._crowd_seconds = crowd_seconds
        self._crowd_ends = 0.0
        self._path = path
        self._protocol = spoken
        self._poll = select.epoll()
        self._by_fd: dict[int, _Client] = {}
        self._numbers = itertools.count()
        self._due = [(0.0, next(self._numbers), _Client()) for _ in range(clients)]

    def run(self, seconds: float) -> Tally:
        used = time.process_time()
        self._crowd_ends = time.perf_counter() + self._crowd_seconds
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            while self._due and self._due[0][0] <= now:
                self._ask(heapq.heappop(self._due)[2])
            until = min(self._due[0][0], end) if self._due else end
            for fd, events in self._poll.poll(max(0.0, until - time.perf_counter())):
                self._handle(self._by_fd[fd], events)
        for client in list(self._by_fd.values()):
            self._drop(client)
        self._poll.close()
        self.tally.processor_seconds = time.process_time() - used
        return self.tally

    def _later(self, client: _Client, pause: float) -> None:
        due = time.perf_counter() + pause
        heapq.heappush(self._due, (due, next(self._numbers), client))

    def _ask(self, client: _Client) -> None:
        client.started = time.perf_counter()
        try:
            sock = client.sock or self._connect(client)
            sent = socket.send_fds(sock, [self._protocol.request], self._protocol.fds)
        except OSError as error:
            # EAGAIN: the listener's backlog is full.
            self.tally.unconnected += client.sock is None
            self.tally.lost += client.sock is not None and error.errno != errno.EAGAIN
            self._drop(client)
            self._later(client, _PAUSE)
            return
        client.unsent = memoryview(self._protocol.request)[sent:]
        self._wait(client)

    def _connect(self, client: _Client) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        client.sock = sock
        self._by_fd[sock.fileno()] = client
        self._poll.register(sock, 0)
        return sock

    def _wait(self, client: _Client) -> None:
        assert client.sock is not None
        write = select.EPOLLOUT if client.unsent else 0
        self._poll.modify(client.sock, select.EPOLLIN | write)

    def _drop(self, client: _Client) -> None:
        if client.sock is not None:
            del self._by_fd[client.sock.fileno()]
            self._poll.unregister(client.sock)
            client.sock.close()
            client.sock = None
        client.received.clear()

    def _handle(self, client: _Client, events: int) -> None:
        assert client.sock is not None
        try:
            if events & select.EPOLLOUT and client.unsent:
                client.unsent = client.unsent[client.sock.send(client.unsent) :]
                self._wait(client)
            if not events & ~select.EPOLLOUT:
                return
            data = client.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        answer = _parse_event(client.received)
        if answer is not None:
            self._take(client, answer)
        elif not data:
            self._take(client, Answer(False))
            self._drop(client)

    def _take(self, client: _Client, answer: Answer) -> None:
        taken = time.perf_counter() - client.started
        if answer.good:
            self.tally.done.append(taken)
        elif answer.pause is not None:
            crowd = client.started < self._crowd_ends
            (self.tally.crowd if crowd else self.tally.busy).append(taken)
        else:
            self.tally.lost += 1
        if self._protocol.one_request_a_connection:
            self._drop(client)
        self._later(client, answer.pause or (0.0 if answer.good else _PAUSE))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["asrd", "wyoming"])
    parser.add_argument("socket")
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("audio", type=Path, help="16-bit PCM of 16 kHz")
    arguments = parser.parse_args()
    load = Load(arguments.socket, protocol(arguments.protocol, arguments.audio), arguments.clients)
    with contextlib.suppress(KeyboardInterrupt):
        print(json.dumps(asdict(load.run(arguments.seconds))))


if __name__ == "__main__":
    main()
