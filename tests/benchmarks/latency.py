"""Added latency over faster-whisper in the caller's own process, and the floor of two bare hops.

    python -m tests.benchmarks.latency [--rounds N] [--untuned]

The in-process way gets the environment that asrd gives its workers (asrd/worker/tuning.py); with
`--untuned` it runs as a plain program does.
All ways take turns in one run with the same model, one thread, beam 1, English, temperature 0; what
counts is the median of the differences within each round.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable

from faster_whisper import WhisperModel
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient as WyomingClient

from asrd import Client
from asrd.demo import MODEL
from asrd.worker.tuning import WORKER_ENVIRONMENT
from tests.benchmarks.floor import floor
from tests.benchmarks.measure import (
    RATE,
    daemon,
    interleave,
    machine,
    median_ms,
    paired,
    pcm,
    speech,
    table,
)
from tests.process.raw import Peer

_CONFIG = "[worker]\ncpu_threads = 1\nbeam_size = 1\n"
_OPTIONS = {"language": "en", "temperature": 0.0}


class Wyoming:
    """The real wyoming client, with the 64 ms chunks that its users send."""

    def __init__(self, path: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = WyomingClient.from_uri(f"unix://{path}")
        self._loop.run_until_complete(self._client.connect())

    def ask(self, data: bytes) -> None:
        self._loop.run_until_complete(self._ask(data))

    async def _ask(self, data: bytes) -> None:
        audio = {"rate": RATE, "width": 2, "channels": 1}
        await self._client.write_event(Transcribe(language="en").event())
        await self._client.write_event(AudioStart(**audio).event())
        for start in range(0, len(data), 2048):
            chunk = AudioChunk(audio=data[start : start + 2048], **audio)
            await self._client.write_event(chunk.event())
        await self._client.write_event(AudioStop().event())
        event = await self._client.read_event()
        if event is None or event.type != "transcript":
            raise RuntimeError(f"no transcript but {event}")

    def close(self) -> None:
        self._loop.run_until_complete(self._client.disconnect())
        self._loop.close()


def _payload(peer: Peer, data: bytes) -> Callable[[], object]:
    audio = {"encoding": "pcm_s16le", "sample_rate": RATE, "channels": 1}

    def ask() -> None:
        peer.send("transcribe", {"job_id": "p", "audio": audio, **_OPTIONS}, data)
        if peer.answer("p").type != "transcript":
            raise RuntimeError("no transcript")

    return ask


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--lengths", type=float, nargs="*", default=[1, 5, 30])
    parser.add_argument("--untuned", action="store_true")
    arguments = parser.parse_args()
    if not arguments.untuned and not WORKER_ENVIRONMENT.items() <= os.environ.items():
        argv = [sys.executable, "-m", "tests.benchmarks.latency", *sys.argv[1:]]
        os.execve(sys.executable, argv, {**os.environ, **WORKER_ENVIRONMENT})
    model = WhisperModel(str(MODEL), device="cpu", cpu_threads=1)
    print(machine())
    for seconds in arguments.lengths:
        _measure(model, seconds, arguments.rounds)


def _measure(model: WhisperModel, seconds: float, rounds: int) -> None:
    audio = speech(seconds)
    data = pcm(audio)

    def in_process() -> None:
        segments, _ = model.transcribe(audio, beam_size=1, language="en", temperature=0.0)
        list(segments)

    with (
        tempfile.TemporaryDirectory() as directory,
        daemon(config=_CONFIG) as path,
        floor(directory) as bare,
        Client(path) as client,
        Peer.connect(path) as peer,
    ):
        wyoming = Wyoming(path)
        ways: dict[str, Callable[[], object]] = {
            "in process": in_process,
            "floor": lambda: bare.ask(data),
            "asrd, descriptor (memfd)": lambda: client.transcribe(
                audio, language="en", temperature=0.0
            ),
            "asrd, payload": _payload(peer, data),
            "asrd, Wyoming stream": lambda: wyoming.ask(data),
        }
        times = interleave(ways, rounds)
        wyoming.close()
    rows = []
    for name, taken in times.items():
        added = "" if name == "floor" else f"{paired(taken, times['in process']):+.2f}"
        rows.append([name, f"{median_ms(taken):.2f}", added])
    table(
        f"{seconds:g} s of audio, {rounds} rounds",
        ["way", "p50 ms", "added ms (paired p50)"],
        rows,
    )


if __name__ == "__main__":
    main()
