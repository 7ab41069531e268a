"""`asrd demo`: the whole daemon in a private directory, and the cost of a crash in it."""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import anyio

from asrd.asrctl.snapshot import read_snapshot
from asrd.asrctl.table import page
from asrd.client.asyncclient import AsyncClient
from asrd.config import FrontSettings
from asrd.demo import SAMPLES, samples
from asrd.errors import AsrdError
from asrd.standalone.pool import WorkerPool, supervised, worker_environment
from asrd.standalone.supervisor import Supervisor, first_of

_SHORT = "en-4.wav"
_LONG = "en-minute.flac"
_READY_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verbose", action="store_true", help="also show the daemon's log")


def demo(args: argparse.Namespace) -> int:
    # SIGTERM and SIGHUP act like Ctrl-C, so that nothing is left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    # The log would show the traceback of the crash that is part of the demo.
    with (
        tempfile.TemporaryDirectory(prefix="asrd-demo-") as directory,
        open(os.devnull, "wb") as nowhere,
    ):
        stderr = None if args.verbose else nowhere.fileno()
        try:
            anyio.run(_demo, Path(directory), stderr)
        except BaseExceptionGroup as group:
            raise _first_of(group) from None
    print("\nStopped; nothing is left behind.")
    return 0


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def _demo(directory: Path, stderr: int | None) -> None:
    settings = FrontSettings(socket=str(directory / "asrd.sock"))
    pool = WorkerPool(1, worker_environment("demo", "cpu", None), stderr=stderr)
    print("Starting front and worker, without systemd, in a private directory …")
    started = time.monotonic()
    async with supervised(settings, directory / "asrd.toml", pool) as supervisor:
        await _until_ready(supervisor)
        print(f"  ready after {time.monotonic() - started:.2f} s\n")
        async with AsyncClient(settings.socket) as client:
            await _transcribe(client)
            await _crash(client, supervisor)


async def _until_ready(supervisor: Supervisor) -> None:
    """Raises AsrdError, ConfigError."""
    worker = supervisor.units[-1]
    with anyio.move_on_after(_READY_SECONDS):
        await first_of({"ready": worker.ready.wait, "failed": supervisor.hopeless.wait})
    if not worker.ready.is_set():
        reason = AsrdError("the worker can't start; `asrd demo --verbose` shows why")
        raise supervisor.hopeless_because or reason


async def _transcribe(client: AsyncClient) -> None:
    truth = {sample.name: sample.text for sample in samples()}
    print(f"Transcribing {_SHORT} through the socket:")
    started = time.monotonic()
    transcript = await client.transcribe(SAMPLES / _SHORT, language="en")
    print(f"  heard:  {transcript.text}")
    print(f"  spoken: {truth[_SHORT]}")
    print(
        f"  {transcript.duration_ms / 1000:.1f} s of speech in {time.monotonic() - started:.2f} s\n"
    )
    print("asrctl status:")
    table = page(read_snapshot(await client.status()))
    print("".join(f"  {line}\n" for line in table.splitlines()))


async def _crash(client: AsyncClient, supervisor: Supervisor) -> None:
    print(f"Now {_LONG} twice; the second time the worker gets SIGSEGV in the middle of it:")
    started = time.monotonic()
    undisturbed = await client.transcribe(SAMPLES / _LONG, language="en")
    print(f"  undisturbed: an answer after {time.monotonic() - started:.2f} s")
    worker = supervisor.units[-1]
    started = time.monotonic()
    async with client.stream(SAMPLES / _LONG, language="en", timeout=60.0) as segments:
        first = await anext(segments)
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
