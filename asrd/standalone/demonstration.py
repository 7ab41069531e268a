"""`asrd demo`: the whole daemon in a private directory, and the cost of a crash in it."""

import argparse
import signal
import time
from pathlib import Path
from typing import NamedTuple

import anyio

from asrd.asrctl.table import page
from asrd.client.asyncclient import AsyncClient
from asrd.client.attempts import JobOptions
from asrd.demo import SAMPLES, SPEECH, SPEECH_TEXT, samples
from asrd.errors import AsrdError
from asrd.snapshot import read_snapshot
from asrd.standalone import flags, private
from asrd.standalone.model_choice import ensure_model
from asrd.standalone.pool import worker_environment
from asrd.standalone.supervisor import Supervisor
from asrd.wire.records import AudioFormat

_SHORT = "en-4.wav"
_LONG = "en-minute.flac"
# The long recording of a person is the short one so many times, with pauses of a second.
_TIMES = 3
_RATE = 16_000


class _Play(NamedTuple):
    """The recordings of a demonstration: a short one with its text, and a long one."""

    title: str
    short: Path
    spoken: str
    long_title: str
    long: Path | bytes
    long_options: JobOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="DIR-OR-NAME", help="a real model, on real speech (base, tiny.en …)"
    )
    parser.add_argument("--yes", action="store_true", help="fetch a missing model without asking")
    parser.add_argument("--verbose", action="store_true", help="also show the daemon's log")


def demo(args: argparse.Namespace) -> int:
    """Raises AsrdError."""
    private.prepare(args.verbose)
    # Not the model of the environment: without the flag, nothing is downloaded.
    model = (args.model and flags.model(args.model)) or "demo"
    ensure_model(model, args.yes)
    try:
        anyio.run(_demo, model, args.verbose)
    except BaseExceptionGroup as group:
        raise _first_of(group) from None
    print("\nStopped; nothing is left behind.")
    return 0


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def _demo(model: str, verbose: bool) -> None:
    play = _with_demo_model() if model == "demo" else _with_real_model()
    environment = worker_environment(model, "cpu" if model == "demo" else None, None)
    print("Starting front and worker, without systemd, in a private directory …")
    started = time.monotonic()
    async with private.private_daemon(environment, verbose) as daemon:
        await private.until_ready(daemon.supervisor)
        print(f"  ready after {time.monotonic() - started:.2f} s\n")
        async with AsyncClient(daemon.socket) as client:
            await _transcribe(client, play)
            await _crash(client, play, daemon.supervisor)


def _with_demo_model() -> _Play:
    truth = {sample.name: sample.text for sample in samples()}
    return _Play(_SHORT, SAMPLES / _SHORT, truth[_SHORT], _LONG, SAMPLES / _LONG, {})


def _with_real_model() -> _Play:
    long = (_samples(SPEECH) + bytes(4 * _RATE)) * _TIMES
    # Temperature 0: other temperatures draw lots, and the two texts are compared.
    options: JobOptions = {"encoding": "pcm_f32le", "temperature": 0.0}
    return _Play(
        f"{SPEECH.name} (John F. Kennedy, 1961)",
        SPEECH,
        SPEECH_TEXT,
        f"three of them in a row ({len(long) // (4 * _RATE)} s)",
        long,
        options,
    )


def _samples(recording: Path) -> bytes:
    """Returns float32 samples, 16000 a second."""
    from asrd.engine.audio.opening import open_recording

    with (
        recording.open("rb") as file,
        open_recording(file.fileno(), AudioFormat("file"), max_seconds=60.0) as reader,
    ):
        return b"".join(block.tobytes() for block in reader)


async def _transcribe(client: AsyncClient, play: _Play) -> None:
    print(f"Transcribing {play.title} through the socket:")
    started = time.monotonic()
    transcript = await client.transcribe(play.short, language="en")
    print(f"  heard:  {transcript.text}")
    print(f"  spoken: {play.spoken}")
    print(
        f"  {transcript.duration_ms / 1000:.1f} s of speech in {time.monotonic() - started:.2f} s\n"
    )
    print("asrctl status:")
    table = page(read_snapshot(await client.status()))
    print("".join(f"  {line}\n" for line in table.splitlines()))


async def _crash(client: AsyncClient, play: _Play, supervisor: Supervisor) -> None:
    death = "the worker gets SIGSEGV in the middle of it"
    print(f"Now {play.long_title} twice; the second time {death}:")
    options: JobOptions = {"language": "en", **play.long_options}
    started = time.monotonic()
    undisturbed = await client.transcribe(play.long, **options)
    print(f"  undisturbed: an answer after {time.monotonic() - started:.2f} s")
    worker = supervisor.units[-1]
    started = time.monotonic()
    async with client.stream(play.long, **options) as segments:
        first = await anext(segments, None)
        if first is None:
            raise AsrdError(f"the model hears nothing in {play.title}")
        print(f"  segment 0: {first.text.strip()}")
        died = time.monotonic()
        worker.signal(signal.SIGSEGV)
        print(f"  SIGSEGV to worker {worker.pid}, {died - started:.2f} s into the job")
        async for _ in segments:
            pass
        transcript = segments.transcript
    same = "the same text" if transcript.text == undisturbed.text else "ANOTHER text"
    print(
        f"  the same request has its transcript after {time.monotonic() - started:.2f} s"
        f" ({transcript.attempts} attempts, {same})"
    )
    (row,) = (await client.status())["workers"]
    print(f"  worker 0: {row['restarts']} restart; last death: {row['last_death']}")
