"""Behaviour that both clients share, against a daemon that misbehaves on request."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest

import asrd.client.asyncclient
import asrd.client.attempts
from asrd import AsyncClient, Client
from asrd.errors import (
    BadAudio,
    BadRequest,
    Busy,
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    ProtocolError,
)
from asrd.wire import frames
from asrd.wire.client_events import Progress
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

Connect = Callable[[], AbstractContextManager[Any]]


class OnLoop:
    """An AsyncClient with the methods of a Client: its event loop runs in another thread."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal, client: AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **options: self._portal.call(partial(method, *args, **options))

    def stream(self, *args: Any, **options: Any) -> "StreamOnLoop":
        stream = self._portal.call(partial(self._client.stream, *args, **options))
        return StreamOnLoop(self._portal, stream)


class StreamOnLoop:
    def __init__(self, portal: anyio.from_thread.BlockingPortal, stream: Any) -> None:
        self._portal = portal
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[Any]:
        while (segment := self._portal.call(self._next, None)) is not None:
            yield segment

    def __next__(self) -> Any:
        return self._portal.call(self._next)

    async def _next(self, *default: Any) -> Any:
        return await anext(self._stream, *default)


@contextmanager
def on_loop(backend: str, path: str) -> Iterator[OnLoop]:
    with (
        anyio.from_thread.start_blocking_portal(backend) as portal,
        portal.wrap_async_context_manager(AsyncClient(path)) as client,
    ):
        yield OnLoop(portal, client)


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def connect(request: pytest.FixtureRequest, path: Path) -> Connect:
    if request.param == "blocking":
        return partial(Client, str(path))
    return partial(on_loop, request.param, str(path))


def texts(found: Any) -> list[str]:
    return [segment.text for segment in found]


def test_transcript_and_the_request_for_it(path: Path, connect: Connect) -> None:
    with FakeDaemon(path, [answer("hello", "you")]) as daemon, connect() as client:
        found = client.transcribe(b"RIFF", language="en", trace_id="t")
        assert found.text == "hello you"
        assert texts(found.segments) == ["hello", "you"]
        (job,) = daemon.jobs
        assert job.audio == b"RIFF"
        assert job.data["language"] == "en"
        assert job.data["audio"]["encoding"] == "file"
        assert job.data["job_id"] == found.job_id
        assert not job.data["stream"]


def test_questions_share_a_connection(path: Path, connect: Connect) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon, connect() as client:
        client.transcribe(b"")
        assert client.status() == client.status(crashes=True) == STATUS
        assert [asked.data["crashes"] for asked in daemon.requests[1:]] == [False, True]
        assert client.describe() == INFO
        assert client.ping() < PATIENCE
        assert {request.connection for request in daemon.requests} == {0}
        assert client.cancel("no-such-job") == 0
        with pytest.raises(BadRequest, match="job_id: is not valid UTF-8"):
            client.cancel("\udcff")


def test_segments_arrive_while_the_job_runs(path: Path, connect: Connect) -> None:
    with FakeDaemon(path, [begin("a", "b")]), connect() as client:
        stream = client.stream(b"", job_id="j")
        assert stream.job_id == "j"
        assert texts([next(stream), next(stream)]) == ["a", "b"]
        with pytest.raises(RuntimeError, match="after the last segment"):
            _ = stream.transcript
        assert client.cancel("j") == 1
        with pytest.raises(Cancelled):
            next(stream)
        assert texts(stream) == []


def test_stream_reports_progress_and_ends_with_the_transcript(path: Path, connect: Connect) -> None:
    heard: list[Progress] = []
    with FakeDaemon(path, [answer("a", "b")]), connect() as client:
        stream = client.stream(b"", on_progress=heard.append)
        assert texts(stream) == ["a", "b"]
        assert stream.transcript.text == "a b"
    assert [(p.audio_seconds_done, p.audio_seconds) for p in heard] == [(1.0, 2.0), (2.0, 2.0)]


def test_refused_job_is_submitted_again(path: Path, connect: Connect) -> None:
    script = [busy(1), fail("shutting-down", retry_after_ms=1), busy(1), answer("x")]
    with FakeDaemon(path, script) as daemon, connect() as client:
        assert client.transcribe(b"RIFF", timeout=PATIENCE).text == "x"
        assert [job.audio for job in daemon.jobs] == [b"RIFF"] * 4
        assert len({job.data["job_id"] for job in daemon.jobs}) == 1
        left = [job.data["timeout_ms"] for job in daemon.jobs]
        assert left == sorted(left, reverse=True)


class Held:
    """A behaviour that accepts one job and answers it when the test wants it."""

    def __init__(self) -> None:
        self._taken: list[tuple[Peer, dict[str, Any]]] = []

    def __call__(self, peer: Peer, request: dict[str, Any]) -> None:
        begin("a")(peer, request)
        self._taken.append((peer, request))

    def release(self) -> None:
        answer("a")(*self._taken.pop())


def test_refused_job_waits_for_the_end_of_another(path: Path, connect: Connect) -> None:
    """However long the daemon asks it to wait. One with a timeout gives up."""
    held, room = Held(), threading.Event()

    def behave(peer: Peer, request: dict[str, Any]) -> None:
        (answer("b") if room.is_set() else busy(3_600_000))(peer, request)

    with FakeDaemon(path, [held, behave]) as daemon, connect() as client:
        stream = client.stream(b"")
        assert next(stream).text == "a"
        with ThreadPoolExecutor() as threads:
            waits = threads.submit(client.transcribe, b"")
            daemon.wait_for("transcribe", 2)
            with pytest.raises(Busy):
                client.transcribe(b"", timeout=PATIENCE)
            assert not waits.done()
            room.set()
            held.release()
            assert texts(stream) == []
            assert waits.result(PATIENCE).text == "b"


def test_job_that_expired_in_the_queue_is_submitted_again(path: Path, connect: Connect) -> None:
    held, expired = Held(), fail("deadline-exceeded", phase="queue")
    with FakeDaemon(path, [held, expired, answer("b")]), connect() as client:
        stream = client.stream(b"")
        next(stream)
        assert client.transcribe(b"").text == "b"
        stream.close()
    with FakeDaemon(path, [expired]), connect() as client, pytest.raises(DeadlineExceeded):
        client.transcribe(b"")


def test_stream_that_begins_anew_never_mixes(path: Path, connect: Connect) -> None:
    with FakeDaemon(path, [hang_up_after("a", "b"), answer("a", "x")]), connect() as client:
        stream = client.stream(b"")
        assert texts([next(stream), next(stream)]) == ["a", "b"]
        with pytest.raises(ConnectionLost, match="the repeated job gave others"):
            next(stream)
        assert texts(stream) == []


def test_refused_connection_is_made_again(path: Path, connect: Connect) -> None:
    script = [refuse_connection("busy", retry_after_ms=1), answer("x")]
    with FakeDaemon(path, script) as daemon, connect() as client:
        assert client.transcribe(b"").text == "x"
        assert [job.connection for job in daemon.jobs] == [0, 1]


@pytest.mark.parametrize("ending", [hang_up, hang_up_after("a")])
def test_job_survives_lost_connections(path: Path, connect: Connect, ending: Behaviour) -> None:
    with FakeDaemon(path, [ending, ending, answer("a", "b")]) as daemon, connect() as client:
        assert texts(client.stream(b"RIFF")) == ["a", "b"]
        assert [job.audio for job in daemon.jobs] == [b"RIFF"] * 3


def test_job_is_given_up_after_three_lost_connections(path: Path, connect: Connect) -> None:
    with FakeDaemon(path, [hang_up]) as daemon, connect() as client:
        with pytest.raises(
            ConnectionLost, match=f"{path} closed the connection before it answered"
        ):
            client.transcribe(b"")
        assert len(daemon.jobs) == 3


def test_client_connects_to_a_restarted_daemon(path: Path, connect: Connect) -> None:
    with connect() as client:
        with FakeDaemon(path, [begin("a")]):
            stream = client.stream(b"")
            assert next(stream).text == "a"
            # The blocking client has an idle connection, too.
            client.ping()
        with FakeDaemon(path, [answer("a", "b")]):
            assert texts(stream) == ["b"]
            client.ping()


def send_descriptor(peer: Peer, request: dict[str, Any]) -> None:
    socket.send_fds(peer.sock, [frames.encode("pong")], [0])


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not acceptable JSON"),
        (raw(b'{"type": "transcript", "data": {"job_id": "j"}}\n'), "text: is missing"),
        (raw(b'{"type": "segment", "payload_length": 5}\nhello'), "payload_length: 5 is over"),
        (send_descriptor, "no event declared"),
    ],
)
def test_malformed_answer_is_a_protocol_error(
    path: Path, connect: Connect, behaviour: Behaviour, problem: str
) -> None:
    with FakeDaemon(path, [behaviour, answer("x")]), connect() as client:
        with pytest.raises(ProtocolError, match=problem):
            client.transcribe(b"", job_id="j")
        assert client.transcribe(b"").text == "x"


def test_silent_daemon_is_given_up_after_the_timeout(
    path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asrd.client.attempts, "GRACE_SECONDS", 0.05)
    with FakeDaemon(path, [never]), connect() as client:
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0.05 s"):
            client.transcribe(b"", timeout=0.05)


def test_daemon_that_never_accepts_is_given_up(
    path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asrd.client.asyncclient, "ANSWER_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as listener, connect() as client:
        listener.bind(str(path))
        listener.listen(0)
        options = {"timeout": 0.05} if isinstance(client, Client) else {}
        with pytest.raises(ConnectionLost, match=r"did not answer within 0.05 s"):
            client.status(**options)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as filler:
            with suppress(BlockingIOError):
                filler.connect(str(path))
            # Now the backlog is full.
            with pytest.raises(ConnectionLost, match=r"did not answer within 0.05 s"):
                client.cancel("j", **options)


def test_error_is_the_answer_and_the_connection_is_kept(path: Path, connect: Connect) -> None:
    with FakeDaemon(path, [fail("bad-audio", "not audio"), answer("x")]) as daemon:
        with connect() as client:
            with pytest.raises(BadAudio, match="not audio"):
                client.transcribe(b"")
            assert client.transcribe(b"").text == "x"
        assert {job.connection for job in daemon.jobs} == {0}


def test_mistakes_of_the_caller_are_reported(path: Path, connect: Connect, tmp_path: Path) -> None:
    with connect() as client:
        with pytest.raises(BadRequest, match="beam_size"):
            client.transcribe(b"", beam_size=99)
        with pytest.raises(TypeError):
            client.transcribe(b"", colour="red")
        with pytest.raises(FileNotFoundError):
            client.transcribe(tmp_path / "missing.wav")
        with pytest.raises(ConnectionLost, match=f"the socket {path} is missing"):
            client.transcribe(b"")
