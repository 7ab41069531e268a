"""The asynchronous client, on asyncio and trio, against a daemon that misbehaves on request."""

import asyncio
import copy
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import asrd.client.attempts
from asrd import AsyncClient
from asrd.errors import (
    BadAudio,
    BadRequest,
    Busy,
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    ProtocolError,
)
from asrd.wire.client_events import Transcript
from tests.support.fake_daemon import (
    INFO,
    PATIENCE,
    STATUS,
    Behaviour,
    FakeDaemon,
    Peer,
    answer,
    begin,
    busy,
    fail,
    hang_up,
    hang_up_after,
    never,
    raw,
    refuse_connection,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "asrd.sock"


async def test_a_transcript_and_the_audio_that_it_is_of(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(b"samples")
    with FakeDaemon(path, [answer("hello", "you")]) as daemon:
        async with AsyncClient(str(path)) as client:
            found = await client.transcribe(file, language="en")
        assert found.text == "hello you"
        (job,) = daemon.jobs
        assert (job.audio, job.data["language"], job.data["stream"]) == (b"samples", "en", False)


async def test_the_short_questions(path: Path) -> None:
    with FakeDaemon(path) as daemon:
        async with AsyncClient(str(path)) as client:
            assert await client.status() == STATUS
            assert await client.status(crashes=True) == STATUS
            assert [asked.data["crashes"] for asked in daemon.requests] == [False, True]
            assert await client.describe() == INFO
            assert await client.ping() < PATIENCE
            assert await client.cancel("no-such-job") == 0
        assert [request.connection for request in daemon.requests] == [0, 0, 0, 0, 1]


async def test_jobs_of_many_tasks_share_one_connection(path: Path) -> None:
    """All are in flight before the first is answered, in the reverse order."""
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


async def test_segments_come_while_the_job_runs(path: Path) -> None:
    with FakeDaemon(path, [begin("a", "b")]):
        async with AsyncClient(str(path)) as client, client.stream(b"", job_id="j") as stream:
            assert stream.job_id == "j"
            assert [(await anext(stream)).text for _ in range(2)] == ["a", "b"]
            with pytest.raises(RuntimeError, match="once all segments"):
                _ = stream.transcript
            assert await client.cancel("j") == 1
            with pytest.raises(Cancelled):
                await anext(stream)
            assert [segment async for segment in stream] == []


async def test_a_stream_ends_with_the_transcript(path: Path) -> None:
    with FakeDaemon(path, [answer("a", "b")]):
        async with AsyncClient(str(path)) as client:
            stream = client.stream(b"")
            assert [segment.text async for segment in stream] == ["a", "b"]
            assert stream.transcript.text == "a b"


@pytest.mark.parametrize("how", ["break", "aclose", "with"])
async def test_a_stream_left_early_cancels_its_job(path: Path, how: str) -> None:
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


async def test_cancelling_the_task_cancels_the_job_and_no_other(path: Path) -> None:
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
async def test_audio_that_is_opened_too_late_is_closed(
    path: Path, tmp_path: Path, anyio_backend: str
) -> None:
    """asyncio's own cancel does not wait for the thread that waits for the pipe's writer."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    opened = threading.Event()

    async with AsyncClient(str(path)) as client:
        stream = client.stream(pipe)
        close_source = stream._close_source

        def close_and_tell() -> None:
            close_source()
            if threading.current_thread() is not threading.main_thread():
                opened.set()

        stream._close_source = close_and_tell  # type: ignore[method-assign]
        task = asyncio.create_task(anext(stream))
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pipe.write_bytes(b"samples")
        assert await anyio.to_thread.run_sync(opened.wait, PATIENCE)
        # A reference cycle through the method above would keep it from being looked at.
        del stream._close_source


async def test_the_id_of_a_job_in_flight_is_taken(path: Path) -> None:
    with FakeDaemon(path, [begin("a")]):
        async with AsyncClient(str(path)) as client, client.stream(b"", job_id="j") as stream:
            await anext(stream)
            with pytest.raises(ValueError, match="'j' is still open"):
                await client.transcribe(b"", job_id="j")


async def test_busy_is_waited_out(path: Path) -> None:
    script = [busy(1), fail("shutting-down", retry_after_ms=1), answer("x")]
    with FakeDaemon(path, script) as daemon:
        async with AsyncClient(str(path)) as client:
            assert (await client.transcribe(b"RIFF", timeout=PATIENCE)).text == "x"
        assert [job.audio for job in daemon.jobs] == [b"RIFF"] * 3


async def test_busy_past_the_timeout_is_told(path: Path) -> None:
    with FakeDaemon(path, [busy(60_000)]):
        async with AsyncClient(str(path)) as client:
            with pytest.raises(Busy):
                await client.transcribe(b"", timeout=5)


async def test_a_connection_too_many_is_waited_out(path: Path) -> None:
    with FakeDaemon(path, [refuse_connection("busy", retry_after_ms=1), answer("x")]) as daemon:
        async with AsyncClient(str(path)) as client:
            assert (await client.transcribe(b"")).text == "x"
        assert [job.connection for job in daemon.jobs] == [0, 1]


@pytest.mark.parametrize("ending", [hang_up, hang_up_after("a")])
async def test_jobs_survive_a_daemon_that_went_away(path: Path, ending: Behaviour) -> None:
    """Both jobs lose the one connection, and share the next."""
    found = []
    with FakeDaemon(path, [never, ending, answer("a", "b")]) as daemon:
        async with AsyncClient(str(path)) as client, anyio.create_task_group() as tasks:

            async def work() -> None:
                found.append([segment.text async for segment in client.stream(b"RIFF")])

            tasks.start_soon(work)
            tasks.start_soon(work)
        assert found == [["a", "b"], ["a", "b"]]
        assert [job.connection for job in daemon.jobs] == [0, 0, 1, 1]
        assert {job.audio for job in daemon.jobs} == {b"RIFF"}


async def test_a_job_that_loses_every_daemon_is_given_up(path: Path) -> None:
    with FakeDaemon(path, [hang_up]) as daemon:
        async with AsyncClient(str(path)) as client:
            with pytest.raises(ConnectionLost, match="went away before it had answered"):
                await client.transcribe(b"")
        assert len(daemon.jobs) == 3


@pytest.mark.parametrize(
    ("bytes_", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not acceptable JSON"),
        (b'{"type": "transcript", "data": {"job_id": "j"}}\n', "text: is missing"),
        (b'{"type": "segment", "payload_length": 5}\nhello', "payload_length: 5 is over"),
    ],
)
async def test_garbage_is_one_clear_sentence(path: Path, bytes_: bytes, problem: str) -> None:
    with FakeDaemon(path, [raw(bytes_), answer("x")]):
        async with AsyncClient(str(path)) as client:
            with pytest.raises(ProtocolError, match=problem):
                await client.transcribe(b"", job_id="j")
            assert (await client.transcribe(b"")).text == "x"


async def test_a_silent_daemon_is_given_up_a_while_after_the_timeout(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asrd.client.attempts, "GRACE_SECONDS", 0.05)
    with FakeDaemon(path, [never]) as daemon:
        async with AsyncClient(str(path)) as client:
            with pytest.raises(DeadlineExceeded, match=r"no answer within 0.05 s"):
                await client.transcribe(b"", timeout=0.05)
            await anyio.to_thread.run_sync(daemon.wait_for, "cancel")


async def test_a_silent_daemon_does_not_hold_status(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrd.client.asyncclient.ANSWER_SECONDS", 0.05)
    with FakeDaemon(path, others={"status": lambda peer, data: None}):
        async with AsyncClient(str(path)) as client:
            with pytest.raises(ConnectionLost, match=r"did not answer within 0.05 s"):
                await client.status()


async def test_other_errors_are_the_answer(path: Path) -> None:
    with FakeDaemon(path, [fail("bad-audio", "not audio")]):
        async with AsyncClient(str(path)) as client:
            with pytest.raises(BadAudio, match="not audio"):
                await client.transcribe(b"")


async def test_mistakes_of_the_caller(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncClient(str(path)).ping()
    async with AsyncClient(str(path)) as client:
        with pytest.raises(BadRequest, match="beam_size"):
            await client.transcribe(b"", beam_size=99)
        with pytest.raises(FileNotFoundError):
            await client.transcribe(tmp_path / "missing.wav")
        with pytest.raises(ConnectionLost, match=f"the socket {path} is missing"):
            await client.transcribe(b"")


async def test_the_bodys_exception_comes_out_as_it_is(path: Path) -> None:
    with FakeDaemon(path), pytest.raises(KeyError, match="mine"):
        async with AsyncClient(str(path)) as client:
            await client.ping()
            raise KeyError("mine")


async def test_the_body_may_be_cancelled(path: Path) -> None:
    with FakeDaemon(path, [never]) as daemon:
        with anyio.move_on_after(PATIENCE) as scope:
            async with AsyncClient(str(path)) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(client.transcribe, b"")
                await anyio.to_thread.run_sync(daemon.wait_for, "transcribe")
                scope.cancel()
        assert scope.cancelled_caught
        await anyio.to_thread.run_sync(daemon.wait_for_hang_up)


async def test_a_client_may_be_entered_again(path: Path) -> None:
    client = AsyncClient(str(path))
    with FakeDaemon(path) as daemon:
        for _ in range(2):
            async with client:
                await client.ping()
        assert [request.connection for request in daemon.requests] == [0, 1]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
async def test_a_copy_has_the_path_and_has_to_be_entered(path: Path, copied: Any) -> None:
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


async def test_a_daemon_that_reads_late_gets_every_request_whole(path: Path) -> None:
    """More than the kernel's buffer holds waits in the client, descriptors and all."""
    gate = threading.Event()
    long_prompt = "p" * 4000

    def hold(peer: Peer, request: dict[str, Any]) -> None:
        gate.wait(PATIENCE)
        answer("x")(peer, request)

    with FakeDaemon(path, [hold]) as daemon:
        async with AsyncClient(str(path)) as client, anyio.create_task_group() as tasks:

            async def work(number: int) -> None:
                await client.transcribe(b"%d" % number, initial_prompt=long_prompt)

            for number in range(100):
                tasks.start_soon(work, number)
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert sorted(int(job.audio or b"-1") for job in daemon.jobs) == list(range(100))
