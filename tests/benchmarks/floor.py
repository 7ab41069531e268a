"""The floor of the latency: two bare Unix hops with anyio. The second converts the audio to
float32; there is no model.

As a program (`python -m tests.benchmarks.floor relay|worker SOCKET [NEXT]`) it is one of the hops.
"""

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX, socket

import anyio
import numpy as np
from anyio.abc import ByteStream

_LENGTH = struct.Struct("<Q")


async def _read(stream: ByteStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        data += await stream.receive(count - len(data))
    return bytes(data)


async def _relay(path: str, onward: str) -> None:
    worker = await anyio.connect_unix(onward)

    async def serve(client: ByteStream) -> None:
        while True:
            header = await _read(client, _LENGTH.size)
            body = await _read(client, *_LENGTH.unpack(header))
            await worker.send(header + body)
            await client.send(await _read(worker, _LENGTH.size))

    await (await anyio.create_unix_listener(path)).serve(serve)


async def _worker(path: str) -> None:
    async def serve(relay: ByteStream) -> None:
        while True:
            (count,) = _LENGTH.unpack(await _read(relay, _LENGTH.size))
            body = await _read(relay, count)
            audio = np.frombuffer(body, "<i2").astype(np.float32) / 32768
            await relay.send(_LENGTH.pack(audio.shape[0]))

    await (await anyio.create_unix_listener(path)).serve(serve)


class Floor:
    def __init__(self, path: str) -> None:
        self._sock = socket(AF_UNIX)
        self._sock.connect(path)

    def ask(self, body: bytes) -> int:
        """Makes one round trip. Returns the number of samples that arrived at the second hop."""
        self._sock.sendall(_LENGTH.pack(len(body)) + body)
        answer = self._sock.recv(_LENGTH.size)
        return int(_LENGTH.unpack(answer)[0])

    def close(self) -> None:
        self._sock.close()


@contextmanager
def floor(directory: str) -> Iterator[Floor]:
    paths = f"{directory}/relay", f"{directory}/worker"
    commands = [("worker", paths[1]), ("relay", *paths)]
    processes = []
    try:
        for command, path in zip(commands, reversed(paths), strict=True):
            argv = [sys.executable, "-m", "tests.benchmarks.floor", *command]
            processes.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
            while not Path(path).exists():
                time.sleep(0.02)
        time.sleep(0.2)
        client = Floor(paths[0])
        yield client
        client.close()
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        anyio.run(_relay, sys.argv[2], sys.argv[3])
    else:
        anyio.run(_worker, sys.argv[2])
