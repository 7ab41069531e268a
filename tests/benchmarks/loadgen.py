"""A load generator: clients in one process that each wait for their answer and ask again.

    python -m tests.benchmarks.loadgen asrd|wyoming SOCKET CLIENTS SECONDS AUDIO

A refused client waits for `retry_after_ms` and asks again. The generator shares the cores with the
daemon, so it encodes each request once and parses only as much of an answer as it needs. Prints a
Tally as JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from asrd.errors import Code
from asrd.wire import frames
from tests.benchmarks import peers
from tests.benchmarks.measure import ASKED
from tests.support.raw import PCM

# After a failure, in seconds.
_PAUSE = 0.05
_READ_SIZE = 1 << 16


@dataclass
class Tally:
    """Seconds until each transcript (`done`) and each refusal. `crowd` are the refusals of requests
    sent in the first second, when all clients connect at once; `busy` are the later ones. `lost`
    counts other errors and connections that ended, `unconnected` failures to connect."""

    done: list[float] = field(default_factory=list)
    crowd: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    lost: int = 0
    unconnected: int = 0
    processor_seconds: float = 0.0


class Answer(NamedTuple):
    """The type or error code of an answer, and the seconds to wait before the next request."""

    kind: str
    pause: float = _PAUSE


class Protocol(NamedTuple):
    request: bytes
    fds: list[int]
    one_request_a_connection: bool


def protocol(name: str, audio: Path) -> Protocol:
    if name == "asrd":
        request = frames.encode("transcribe", {"audio": PCM, **ASKED}, fds=1)
        # Stays open as long as the program runs; each request sends it again.
        return Protocol(request, [os.open(audio, os.O_RDONLY)], False)
    payloads = ((event, event.payload or b"") for event in peers.request(audio.read_bytes()))
    parts = [frames.encode(event.type, event.data, len(data)) + data for event, data in payloads]
    return Protocol(b"".join(parts), [], True)


class Load:
    def __init__(self, path: str, spoken: Protocol, crowd_seconds: float = 1.0) -> None:
        self.tally = Tally()
        self._path = path
        self._protocol = spoken
        self._crowd_ends = time.perf_counter() + crowd_seconds

    async def run(self, clients: int, seconds: float) -> Tally:
        used = time.process_time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for _ in range(clients):
                    group.create_task(self._client())
        self.tally.processor_seconds = time.process_time() - used
        return self.tally

    async def _client(self) -> None:
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.setblocking(False)
                try:
                    sock.connect(self._path)
                except OSError:  # among them EAGAIN: the listener's backlog is full
                    self.tally.unconnected += 1
                    await asyncio.sleep(_PAUSE)
                    continue
                while await self._request(sock) and not self._protocol.one_request_a_connection:
                    pass

    async def _request(self, sock: socket.socket) -> bool:
        """Sends one request and counts its answer. Returns False if the connection ended."""
        started = time.perf_counter()
        try:
            answer = await self._ask(sock)
        except OSError:
            answer = None
        taken = time.perf_counter() - started
        match answer:
            case Answer("transcript"):
                self.tally.done.append(taken)
            case Answer(Code.BUSY):
                crowd = started < self._crowd_ends
                (self.tally.crowd if crowd else self.tally.busy).append(taken)
            case _:
                self.tally.lost += 1
        await asyncio.sleep(answer.pause if answer else _PAUSE)
        return answer is not None

    async def _ask(self, sock: socket.socket) -> Answer | None:
        loop = asyncio.get_running_loop()
        sent = socket.send_fds(sock, [self._protocol.request], self._protocol.fds)
        await loop.sock_sendall(sock, memoryview(self._protocol.request)[sent:])
        received = bytearray()
        while data := await loop.sock_recv(sock, _READ_SIZE):
            received += data
            if answer := _parse(received):
                return answer
        return None


def _parse(buffer: bytearray) -> Answer | None:
    """Removes complete events from the buffer, up to the one that answers the request."""
    while (end := buffer.find(b"\n") + 1) > 0:
        header = orjson.loads(buffer[:end])
        after = end + header.get("data_length", 0)
        if len(buffer) < after + header.get("payload_length", 0):
            return None
        data = bytes(buffer[end:after])
        del buffer[: after + header.get("payload_length", 0)]
        if header["type"] == "transcript":
            return Answer("transcript", 0.0)
        if header["type"] == "error":
            error = orjson.loads(data)
            retry_after = error.get("retry_after_ms")
            return Answer(error["code"], retry_after / 1000 if retry_after else _PAUSE)
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["asrd", "wyoming"])
    parser.add_argument("socket")
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("audio", type=Path, help="16-bit PCM of 16 kHz")
    arguments = parser.parse_args()
    load = Load(arguments.socket, protocol(arguments.protocol, arguments.audio))
    with contextlib.suppress(KeyboardInterrupt):
        tally = asyncio.run(load.run(arguments.clients, arguments.seconds))
        print(json.dumps(asdict(tally)))


if __name__ == "__main__":
    main()
