"""Clients that use a library: asrd's own, blocking and asynchronous, or the wyoming package."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient as WyomingClient
from wyoming.error import Error as WyomingError

import asrd
from asrd.errors import ConnectionLost, JobError, ProtocolError
from asrd.wire import client_events
from tests.soak.clips import Clip
from tests.soak.honest import CHUNK, HANG_SECONDS, MONO, Context
from tests.soak.oracle import Job, Kind


def blocking(context: Context) -> None:
    """Runs up to three jobs, one after another, on one connection."""
    with asrd.Client(context.socket) as client:
        for _ in range(context.chance.randint(1, 3)):
            with _job(context, "Client") as (job, audio, options):
                with client.stream(audio, **options) as stream:
                    streamed = "".join(segment.text for segment in stream)
                _answered(context, job, stream.transcript, streamed)


def asyncio_(context: Context) -> None:
    anyio.run(_several, context, "AsyncClient on asyncio", backend="asyncio")


def trio(context: Context) -> None:
    anyio.run(_several, context, "AsyncClient on trio", backend="trio")


async def _several(context: Context, how: str) -> None:
    """Runs up to three jobs at once on one connection."""
    async with asrd.AsyncClient(context.socket) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(context.chance.randint(1, 3)):
                tasks.start_soon(_one, context, client, how)


async def _one(context: Context, client: asrd.AsyncClient, how: str) -> None:
    with _job(context, how) as (job, audio, options):
        _answered(context, job, await client.transcribe(audio, **options))


@contextmanager
def _job(context: Context, how: str) -> Iterator[tuple[Job, Any, Any]]:
    """A job, its audio and its options; an error that the library raises is the job's outcome."""
    clip, as_file = context.clip(), context.chance.random() < 0.5
    timeout = context.chance.choice([None, None, 25.0])
    job = context.open(Kind.INNOCENT, how, clip, as_file, timeout, library=True)
    options = {"job_id": job.id, "timeout": timeout, **clip.options}
    if not as_file:
        options |= {"encoding": "pcm_s16le", "channels": clip.channels}
    try:
        yield job, clip.path if as_file else clip.pcm, options
    except JobError as error:
        job.note(error.text)
        context.ledger.close(job, error.code)
    except ConnectionLost as error:
        job.note(str(error))
        context.ledger.close(job, "lost")
    except ProtocolError as error:
        context.ledger.close(job, f"ProtocolError: {error}")


def _answered(
    context: Context, job: Job, answer: client_events.Transcript, streamed: str | None = None
) -> None:
    if streamed is not None and streamed.strip() != answer.text:
        context.ledger.fail(f"segments {streamed!r} of the transcript {answer.text!r}", job)
    if answer.job_id != job.id:
        context.ledger.fail(f"the answer of {answer.job_id}", job)
    context.ledger.close(job, "transcript", answer.text, answer.attempts)


def wyoming_package(context: Context) -> None:
    clip = context.plain_clip()
    job = context.open(Kind.INNOCENT, "wyoming", clip)
    try:
        event = anyio.run(_converse, context.socket, clip)
    except OSError as error:
        job.note(str(error))
        event = None
    if event is None:
        context.ledger.close(job, "lost")
    elif Transcript.is_type(event.type):
        context.ledger.close(job, "transcript", Transcript.from_event(event).text)
    else:
        context.ledger.close(job, WyomingError.from_event(event).code or "no code")


async def _converse(socket: str, clip: Clip) -> Any:
    async with WyomingClient.from_uri(f"unix://{socket}") as client:
        await client.write_event(Transcribe(language=clip.language).event())
        await client.write_event(AudioStart(**MONO).event())
        for start in range(0, len(clip.pcm), CHUNK):
            chunk = AudioChunk(audio=clip.pcm[start : start + CHUNK], **MONO)
            await client.write_event(chunk.event())
        await client.write_event(AudioStop().event())
        with anyio.fail_after(HANG_SECONDS):
            return await client.read_event()
