"""The asynchronous client's own behaviour: tasks, cancellation, its block, copies."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asrd import AsyncClient
from asrd.wire.client_events import Transcript
from tests.support.copying import COPIES
from tests.support.fake_daemon import (
    PATIENCE,
    FakeDaemon,
    Peer,
    answer,
    begin,
    hang_up,
    never,
)

pytestmark = pytest.mark.anyio


async def test_jobs_of_many_tasks_share_a_connection(path: Path) -> None:
    """All jobs are submitted before the first is answered, in the reverse order."""
    held: list[tuple[Peer, dict[str, Any]]] = []

    def hold(peer: Peer, request: dict[str, Any]) -> None:
        held.append((peer, request))
        if len(held) == 20:
            for peer_, request_ in reversed(held):
                answer(request_["job_id"])(peer_, request_)

    found: dict[str, Transcript] = {}
    with FakeDaemon(path, [hold]) as daemon:
        async with AsyncClient(str(path)) as client, anyio.create_task_group() as tasks:

            async def work(job_id: str) -> None:
                found[job_id] = await client.transcribe(job_id.encode(), job_id=job_id)

            for number in range(20):
                tasks.start_soon(work, f"job-{number}")
        assert {job_id: t.text for job_id, t in found.items()} == {
            f"job-{n}": f"job-{n}" for n in range(20)
        }
        assert {job.connection for job in daemon.jobs} == {0}
        assert all(job.audio == job.data["job_id"].encode() for job in daemon.jobs)


@pytest.mark.parametrize("how", ["break", "aclose", "with"])
async def test_stream_left_early_cancels_its_job(path: Path, how: str) -> None:
    with FakeDaemon(path, [begin("a", "b"), answer("x")]) as daemon:
        async with AsyncClient(str(path)) as client:
            match how:
                case "break":
                    async for _ in client.stream(b"", job_id="j"):
                        break
                case "aclose":
                    stream = client.stream(b"", job_id="j")
                    await anext(stream)
                    await stream.aclose()
                case "with":
                    async with client.stream(b"", job_id="j") as stream:
                        await anext(stream)
            (cancel,) = await anyio.to_thread.run_sync(daemon.wait_for, "cancel")
            assert cancel.data == {"job_id": "j"}
            assert (await client.transcribe(b"")).text == "x"
        assert {request.connection for request in daemon.requests} == {0}


async def test_cancelled_task_cancels_only_its_job(path: Path) -> None:
    with FakeDaemon(path, [never, answer("x")]) as daemon:
        async with AsyncClient(str(path)) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.transcribe, b"")
            (job,) = await anyio.to_thread.run_sync(daemon.wait_for, "transcribe")
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                (cancel,) = await anyio.to_thread.run_sync(daemon.wait_for, "cancel")
                assert cancel.data["job_id"] == job.data["job_id"]
                assert (await client.transcribe(b"")).text == "x"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_audio_opened_after_the_cancellation_is_closed(
    path: Path, tmp_path: Path, anyio_backend: str
) -> None:
    """asyncio's `Task.cancel` does not wait for the thread, which waits for the pipe's writer."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    opened = threading.Event()

    async with AsyncClient(str(path)) as client:
        stream = client.stream(pipe)
        leave = stream.leave

        def leave_and_report() -> None:
            leave()
            if threading.current_thread() is not threading.main_thread():
                opened.set()

        stream.leave = leave_and_report  # type: ignore[method-assign]
        task = asyncio.create_task(anext(stream))
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pipe.write_bytes(b"samples")
        assert await anyio.to_thread.run_sync(opened.wait, PATIENCE)
        # Breaks the reference cycle, so that the stream is closed before the test looks for leaks.
        del stream.leave


async def test_jobs_of_a_lost_connection_share_the_next(path: Path) -> None:
    found = []
    with FakeDaemon(path, [never, hang_up, answer("a", "b")]) as daemon:
        async with AsyncClient(str(path)) as client, anyio.create_task_group() as tasks:

            async def work() -> None:
                found.append([segment.text async for segment in client.stream(b"RIFF")])

            tasks.start_soon(work)
            tasks.start_soon(work)
        assert found == [["a", "b"], ["a", "b"]]
        assert [job.connection for job in daemon.jobs] == [0, 0, 1, 1]
        assert {job.audio for job in daemon.jobs} == {b"RIFF"}


async def test_exception_of_the_block_is_not_wrapped(path: Path) -> None:
    with FakeDaemon(path), pytest.raises(KeyError, match="mine"):
        async with AsyncClient(str(path)) as client:
            await client.ping()
            raise KeyError("mine")


async def test_cancelled_block_hangs_up(path: Path) -> None:
    with FakeDaemon(path, [never]) as daemon:
        with anyio.move_on_after(PATIENCE) as scope:
            async with AsyncClient(str(path)) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(client.transcribe, b"")
                await anyio.to_thread.run_sync(daemon.wait_for, "transcribe")
                scope.cancel()
        assert scope.cancelled_caught
        await anyio.to_thread.run_sync(daemon.wait_for_hang_up)


async def test_client_can_be_entered_again(path: Path) -> None:
    client = AsyncClient(str(path))
    with FakeDaemon(path) as daemon:
        for _ in range(2):
            async with client:
                await client.ping()
        assert [request.connection for request in daemon.requests] == [0, 1]


@pytest.mark.parametrize("copied", COPIES)
async def test_copy_has_the_path_and_must_be_entered(path: Path, copied: Any) -> None:
    with FakeDaemon(path, [begin("a")]) as daemon:
        async with AsyncClient(str(path)) as client:
            await client.ping()
            with pytest.raises(RuntimeError, match="inside 'async with"):
                await copied(client).ping()
            async with copied(client) as copy_, client.stream(b"") as stream:
                await copy_.ping()
                await anext(stream)
                with pytest.raises(TypeError, match="AsyncSegmentStream belongs to one process"):
                    copied(stream)
            assert [request.connection for request in daemon.requests[:3]] == [0, 1, 0]
