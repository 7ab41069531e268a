"""The speed of a running daemon: one recording, transcribed again and again."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import anyio

from asrd.client.asyncclient import AsyncClient
from asrd.errors import AsrdError
from asrd.model_names import DEMO


@dataclass(frozen=True, slots=True)
class Speed:
    """`median`: seconds from a request to its transcript. `per_minute`: seconds that a minute of
    audio takes, with all clients together. `audio_seconds`: the recording's length."""

    clients: int
    median: float
    per_minute: float
    audio_seconds: float


def recording(model: str | None) -> Path:
    """Returns a recording in English, of ten seconds or so, that the model understands.

    Raises AsrdError if the package with the recordings is missing.
    """
    try:
        from asrd.demo import SAMPLES, SPEECH
    except ImportError:
        raise AsrdError("the recording is missing: it comes with the package asrd") from None
    return SAMPLES / "en-several.wav" if model == DEMO else SPEECH


async def measure(
    socket: str, audio: Path, clients: int, seconds: float, model: str | None = None
) -> Speed:
    """Transcribes with so many clients at once for `seconds`, each at least once. A request that
    would probably end later is not begun.

    Raises AsrdError, the first of any client.
    """
    times: list[float] = []
    lengths: list[float] = []
    failures: list[AsrdError] = []

    async def work(client: AsyncClient, end: float) -> None:
        now = anyio.current_time()
        while True:
            begun = now
            # Without a higher temperature, whose texts and times are drawn by lot.
            heard = await client.transcribe(audio, language="en", temperature=0.0, model=model)
            now = anyio.current_time()
            times.append(now - begun)
            lengths.append(heard.duration_ms / 1000)
            if now + times[-1] > end:
                return

    async def one_client(end: float) -> None:
        try:
            async with AsyncClient(socket) as client:
                await work(client, end)
        except AsrdError as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    started = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(clients):
            tasks.start_soon(one_client, started + seconds)
    if failures:
        raise failures[0]
    per_minute = 60 * (anyio.current_time() - started) / sum(lengths)
    return Speed(clients, statistics.median(times), per_minute, lengths[0])
