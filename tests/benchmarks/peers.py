"""The server that asrd is compared with: wyoming-faster-whisper, of the extra `bench`."""

import asyncio
import importlib.util
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.info import Describe

from asrd.demo import MODEL
from tests.benchmarks.measure import RATE

WYOMING = "wyoming-faster-whisper"
_START_SECONDS = 60.0
# As Restart=always does with systemd's own RestartSec.
_RESTART_SECONDS = 0.1


def missing() -> str | None:
    """The cell of a table that replaces figures of a peer that is not installed; else None."""
    installed = importlib.util.find_spec("wyoming_faster_whisper") is not None
    return None if installed else "NOT INSTALLED: .[bench]"


@contextmanager
def serving() -> Iterator["Wyoming"]:
    """The peer with the demo model, warm."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/peer.sock"
        process = _Restarting(_command(path, directory))
        peer = Wyoming(path, process)
        try:
            _wait_until_it_answers(peer)
            yield peer
        finally:
            peer.close()
            process.stop()


def _command(path: str, directory: str) -> list[str]:
    argv = [sys.executable, "-m", "wyoming_faster_whisper", "--uri", f"unix://{path}"]
    argv += ["--model", str(MODEL), "--data-dir", directory, "--local-files-only"]
    argv += ["--stt-library", "faster-whisper", "--device", "cpu", "--cpu-threads", "1"]
    return [*argv, "--beam-size", "1", "--language", "en"]


def _wait_until_it_answers(peer: "Wyoming") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            peer.ask(bytes(2 * RATE))
            return
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class _Restarting:
    """A process that is started again when it ends, until `stop`."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self._stopping = False
        self._start()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join()

    def _start(self) -> None:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._argv, stdout=quiet, stderr=quiet)

    def _keep(self) -> None:
        while True:
            self._process.wait()
            time.sleep(_RESTART_SECONDS)
            if self._stopping:
                return
            self._start()


class Wyoming:
    """The real wyoming client, with the 64 ms chunks that its users send, a connection for each
    request as they do (wyoming-faster-whisper ends it after the answer). asrd takes it, too."""

    def __init__(self, path: str, process: _Restarting | None = None) -> None:
        self.path = path
        self._process = process
        self._loop = asyncio.new_event_loop()

    def ask(self, data: bytes, timeout: float | None = None) -> str:
        asked = asyncio.wait_for(ask_wyoming(self.path, data), timeout)
        return self._loop.run_until_complete(asked)

    def question(self) -> None:
        self._loop.run_until_complete(describe(self.path))

    def worker_pid(self) -> int:
        if self._process is None:
            raise RuntimeError("not started here")
        return self._process.pid

    def another(self) -> "Wyoming":
        return Wyoming(self.path, self._process)

    def close(self) -> None:
        self._loop.close()


async def ask_wyoming(path: str, data: bytes) -> str:
    async with AsyncClient.from_uri(f"unix://{path}") as client:
        audio = {"rate": RATE, "width": 2, "channels": 1}
        await client.write_event(Transcribe(language="en").event())
        await client.write_event(AudioStart(**audio).event())
        for start in range(0, len(data), 2048):
            chunk = AudioChunk(audio=data[start : start + 2048], **audio)
            await client.write_event(chunk.event())
        await client.write_event(AudioStop().event())
        event = await client.read_event()
        if event is None or event.type != "transcript":
            raise RuntimeError(f"no transcript but {event}")
        return str(event.data["text"])


async def describe(path: str) -> None:
    async with AsyncClient.from_uri(f"unix://{path}") as client:
        await client.write_event(Describe().event())
        if await client.read_event() is None:
            raise RuntimeError("no info")
