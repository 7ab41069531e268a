"""The server that asrd is compared with: wyoming-faster-whisper, from the extra `bench`."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event
from wyoming.info import Describe

from tests.benchmarks.measure import COMPUTE_TYPE, RATE
from tests.support.procfs import children

WYOMING = "wyoming-faster-whisper"
_START_SECONDS = 60.0
# Restarts the server as systemd does with Restart=always and its default RestartSec.
_RESTARTING = 'while :; do "$@"; sleep 0.1; done'


def missing() -> str | None:
    """Returns the table cell for a peer that is not installed, or None."""
    installed = importlib.util.find_spec("wyoming_faster_whisper") is not None
    return None if installed else "NOT INSTALLED: .[bench]"


@contextmanager
def serving(model: Path) -> Iterator["Wyoming"]:
    """Runs the peer with the model until the context ends; it has answered once."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/peer.sock"
        argv = [sys.executable, "-m", "wyoming_faster_whisper", "--uri", f"unix://{path}"]
        argv += ["--model", str(model), "--data-dir", directory, "--local-files-only"]
        argv += ["--stt-library", "faster-whisper", "--device", "cpu", "--cpu-threads", "1"]
        argv += ["--beam-size", "1", "--language", "en", "--compute-type", COMPUTE_TYPE]
        shell = subprocess.Popen(
            ["sh", "-c", _RESTARTING, "sh", *argv],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        peer = Wyoming(path, shell.pid)
        try:
            peer.ask_until_answered(bytes(2 * RATE))
            yield peer
        finally:
            peer.close()
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()


class Wyoming:
    """The client of the wyoming package. It sends 64 ms chunks and opens a connection for each
    request, as its users do (wyoming-faster-whisper closes it after the answer)."""

    def __init__(self, path: str, shell: int = 0) -> None:
        self.path = path
        self._shell = shell
        self._loop = asyncio.new_event_loop()

    def ask(self, data: bytes) -> None:
        self._loop.run_until_complete(ask_wyoming(self.path, data))

    def ask_until_answered(self, data: bytes) -> None:
        """Asks again after each failure. Raises the last error after a minute."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                return self.ask(data)
            except (OSError, RuntimeError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

    def describe(self) -> None:
        self._loop.run_until_complete(_exchange(self.path, [Describe().event()]))

    def kill(self) -> None:
        (server,) = children(self._shell)
        os.kill(server, signal.SIGKILL)

    def close(self) -> None:
        self._loop.close()


def request(data: bytes) -> list[Event]:
    """Returns the events of one request; `data` is 16-bit PCM of 16 kHz."""
    audio = {"rate": RATE, "width": 2, "channels": 1}
    chunks = [data[start : start + 2048] for start in range(0, len(data), 2048)]
    return [
        Transcribe(language="en").event(),
        AudioStart(**audio).event(),
        *(AudioChunk(audio=chunk, **audio).event() for chunk in chunks),
        AudioStop().event(),
    ]


async def ask_wyoming(path: str, data: bytes) -> None:
    event = await _exchange(path, request(data))
    if event is None or event.type != "transcript":
        raise RuntimeError(f"no transcript but {event}")


async def _exchange(path: str, events: list[Event]) -> Event | None:
    async with AsyncClient.from_uri(f"unix://{path}") as client:
        for event in events:
            await client.write_event(event)
        answer: Event | None = await client.read_event()
        return answer
