"""Many recordings at once by one client, without a timeout, with the default settings: each gets
its transcript, although the queue has room for a few."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asrd import AsyncClient, Client
from asrd.settings import FrontSettings, WorkerSettings
from asrd.wire.frames import Frame
from tests.support.daemons import Front
from tests.support.raw import PATIENCE, Peer, done, wait_for

MANY = 100
RECORDINGS = [number.to_bytes(2, "little") * 1600 for number in range(1, MANY + 1)]
TEXTS = [str(number) for number in range(1, MANY + 1)]
OPTIONS: dict[str, Any] = {"encoding": "pcm_s16le"}


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Front(tmp_path, "0") as daemon:
        yield daemon


def serve(worker: Peer, begin: threading.Event) -> None:
    """Answers each job with the number in its recording. The first answers come when `begin` is
    set."""
    while (event := worker.receive()) is not None:
        begin.wait(PATIENCE)
        if event.type == "job":
            worker.send("done", done(event.data["key"], text=number_in(event)))
        event.close()


def number_in(event: Frame) -> str:
    (fd,) = event.fds
    return str(int.from_bytes(os.pread(fd.fileno(), 2, 0), "little"))


def with_threads(path: str) -> list[str]:
    with Client(path) as client, ThreadPoolExecutor(MANY) as threads:
        found = threads.map(partial(client.transcribe, **OPTIONS), RECORDINGS)
        return [transcript.text for transcript in found]


def with_asyncio(path: str) -> list[str]:
    async def main() -> list[str]:
        async with AsyncClient(path) as client:
            jobs = [client.transcribe(recording, **OPTIONS) for recording in RECORDINGS]
            return [transcript.text for transcript in await asyncio.gather(*jobs)]

    return asyncio.run(main())


def with_trio(path: str) -> list[str]:
    found: dict[int, str] = {}

    async def main() -> None:
        async with AsyncClient(path) as client, anyio.create_task_group() as tasks:

            async def work(index: int) -> None:
                found[index] = (await client.transcribe(RECORDINGS[index], **OPTIONS)).text

            for index in range(MANY):
                tasks.start_soon(work, index)

    anyio.run(main, backend="trio")
    return [found[index] for index in range(MANY)]


@pytest.mark.parametrize("transcribe", [with_threads, with_asyncio, with_trio])
def test_each_of_100_recordings_gets_its_transcript(
    front: Front, transcribe: Callable[[str], list[str]]
) -> None:
    begin = threading.Event()
    slots = WorkerSettings().slots
    with front.ready(slots=slots) as worker, ThreadPoolExecutor() as threads:
        serving = threads.submit(serve, worker, begin)
        texts = threads.submit(transcribe, front.socket)

        def refused() -> int:
            return int(front.status()["jobs"]["refused"].get("busy", 0))

        most = MANY - FrontSettings().queue_max_per_user - slots
        wait_for("the refusals", lambda: refused() >= most)
        begin.set()
        found = texts.result()
        front.stop()
        serving.result()
    assert found == TEXTS
