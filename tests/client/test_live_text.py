"""AsyncClient.live against a daemon that misbehaves on request."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asrd import AsyncClient
from asrd.errors import BadRequest, Busy, ConnectionLost, DeadlineExceeded
from asrd.wire.client_events import TranscriptChunk
from tests.support.fake_daemon import fail, hang_up
from tests.support.live_daemon import LiveDaemon, begin, finish, hear, ignore

pytestmark = pytest.mark.anyio

AUDIO = [b"\1\2" * 100, b"\3\4" * 50]


async def endless(chunk: bytes = b"\0\0") -> AsyncIterator[bytes]:
    yield chunk
    await anyio.sleep_forever()


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_text_is_yielded_as_it_comes_then_the_transcript(path: Path, kind: str) -> None:
    async def asynchronous() -> AsyncIterator[bytes]:
        for chunk in AUDIO:
            yield chunk

    chunks = AUDIO if kind == "plain" else asynchronous()
    # The first chunk's answer is repeated for the second.
    with LiveDaemon(path, start=begin, chunk=hear, stop=finish) as daemon:
        async with AsyncClient(str(path)) as client:
            async with client.live(
                chunks, sample_rate=8000, language="en", final="exact", job_id="j"
            ) as stream:
                with pytest.raises(RuntimeError, match="after the last text"):
                    stream.transcript  # noqa: B018
                found = [chunk async for chunk in stream]
        assert found[:2] == [
            TranscriptChunk("", "j", pending="hel"),
            TranscriptChunk("hello", "j", 0.5, 1),
        ]
        assert found[-1] == TranscriptChunk(" world", "j", 1, 2)
        assert stream.transcript.text == "hello world"
        assert daemon.jobs[0].data == {
            "live": True,
            "language": "en",
            "final": "exact",
            "job_id": "j",
        }
        start, *_ = [each for each in daemon.requests if each.type == "audio-start"]
        assert start.data == {"rate": 8000, "width": 2, "channels": 1}


async def test_frames_are_never_cut(path: Path) -> None:
    """The audio arrives in pieces of any size; chunks hold whole frames of stereo."""
    audio = bytes(range(256)) * 1024
    pieces = [audio[:1], audio[1:6], audio[6:], b"\1\2\3"]
    with LiveDaemon(path, start=begin, stop=finish) as daemon:
        async with AsyncClient(str(path)) as client:
            stream = client.live(pieces, channels=2)
            async for _ in stream:
                pass
        sent = [each.audio or b"" for each in daemon.requests if each.type == "audio-chunk"]
    assert b"".join(sent) == audio
    assert all(sent)
    assert not any(len(payload) % 4 for payload in sent)


@pytest.mark.parametrize("how", ["with", "break", "task", "client"])
async def test_stream_left_early_cancels_the_job(path: Path, how: str) -> None:
    with LiveDaemon(path, start=begin, chunk=hear) as daemon:
        async with AsyncClient(str(path)) as client:
            match how:
                case "with":
                    async with client.live(endless()) as stream:
                        await anext(stream)
                case "break":
                    async for _ in client.live(endless()):
                        break
                    gc.collect()
                case "task":
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_drain, client)
                        await anyio.to_thread.run_sync(daemon.wait_for, "audio-chunk")
                        tasks.cancel_scope.cancel()
                case "client":
                    stream = client.live(endless())
                    await anext(stream)
            if how != "client":
                await anyio.to_thread.run_sync(daemon.wait_for_hang_up)
        await anyio.to_thread.run_sync(daemon.wait_for_hang_up)
    # It is dropped when its tasks are gone.
    stream = None  # type: ignore[assignment]
    gc.collect()


async def _drain(client: AsyncClient) -> None:
    async for _ in client.live(endless()):
        pass


async def test_end_of_speech_ends_the_stream_before_its_audio(path: Path) -> None:
    with LiveDaemon(path, start=begin, chunk=finish) as daemon:
        async with AsyncClient(str(path)) as client:
            stream = client.live(endless(), end_of_speech_ms=800)
            assert [chunk.text async for chunk in stream] == [" world"]
            assert stream.transcript.text == "hello world"
            await anyio.to_thread.run_sync(daemon.wait_for_hang_up)


async def test_old_daemon_is_named_before_any_audio_is_read(path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    with LiveDaemon(path, start=ignore):
        async with AsyncClient(str(path)) as client:
            with pytest.raises(BadRequest, match="the daemon is too old for live text"):
                await anext(client.live(chunks()))


@pytest.mark.parametrize("when", ["start", "chunk", "stop"])
async def test_error_of_the_daemon_is_raised(path: Path, when: str) -> None:
    behaviours = {"start": begin, when: fail("busy", "as asked", retry_after_ms=5)}
    with LiveDaemon(path, **behaviours):
        async with AsyncClient(str(path)) as client:
            with pytest.raises(Busy, match="as asked") as caught:
                async for _ in client.live(AUDIO):
                    pass
            assert caught.value.retry_after_ms == 5


@pytest.mark.parametrize("when", ["start", "chunk", "stop"])
async def test_lost_connection_is_not_repeated(path: Path, when: str) -> None:
    behaviours = {"start": begin, when: hang_up}
    with LiveDaemon(path, **behaviours) as daemon:
        async with AsyncClient(str(path)) as client:
            with pytest.raises(ConnectionLost):
                async for _ in client.live(AUDIO):
                    pass
        assert len(daemon.jobs) == 1


async def test_error_of_the_chunks_is_raised_and_cancels(path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"\0\0"
        raise OSError("the microphone is gone")

    with LiveDaemon(path, start=begin) as daemon:
        async with AsyncClient(str(path)) as client:
            with pytest.raises(OSError, match="the microphone is gone"):
                await anext(client.live(chunks()))
            await anyio.to_thread.run_sync(daemon.wait_for_hang_up)


@pytest.mark.parametrize("chunks", ["text", b"bytes", [[1, 2]]])
async def test_chunks_of_another_type_are_refused(path: Path, chunks: Any) -> None:
    with LiveDaemon(path, start=begin):
        async with AsyncClient(str(path)) as client:
            with pytest.raises(TypeError, match="chunks must be bytes of 16-bit samples"):
                await anext(client.live(chunks))


async def test_timeout_begins_at_the_end_of_the_audio(path: Path) -> None:
    with LiveDaemon(path, start=begin) as daemon:
        async with AsyncClient(str(path)) as client:
            with pytest.raises(DeadlineExceeded, match=r"within 0\.01 s of the end"):
                await anext(client.live(AUDIO, timeout=0.01))
        assert daemon.jobs[0].data["timeout_ms"] == 10


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"sample_rate": 10}, "sample_rate: "),
        ({"channels": 0}, "channels: "),
        ({"live_step_ms": 1}, "live_step_ms: "),
        ({"final": "later"}, "final: "),
        ({"end_of_speech_ms": 0}, "end_of_speech_ms: "),
        ({"timeout": 0}, "timeout: "),
        ({"beam_size": 0}, "beam_size: "),
    ],
)
async def test_wrong_option_is_named_at_once(options: Any, problem: str) -> None:
    async with AsyncClient("/nowhere") as client:
        with pytest.raises(BadRequest, match=problem):
            client.live([], **options)


@pytest.mark.parametrize("name", ["encoding", "on_progress", "mistyped"])
async def test_option_of_other_calls_is_refused(name: str) -> None:
    async with AsyncClient("/nowhere") as client:
        with pytest.raises(TypeError, match=name):
            options: Any = {name: "file"}
            client.live([], **options)


async def test_missing_daemon_is_reported() -> None:
    async with AsyncClient("/nowhere/asrd.sock") as client:
        with pytest.raises(ConnectionLost, match="there is no daemon"):
            await anext(client.live([]))
