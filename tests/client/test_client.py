"""The blocking client against a daemon that misbehaves on request."""

import copy
import io
import os
import pickle
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asrd.client.attempts
from asrd import Client
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
from tests.support.subprocesses import run_python

COPIES = [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "asrd.sock"


def texts(found: Any) -> list[str]:
    return [segment.text for segment in found]


def test_a_transcript_and_the_audio_that_it_is_of(path: Path) -> None:
    with FakeDaemon(path, [answer("hello", "you")]) as daemon, Client(str(path)) as client:
        found = client.transcribe(b"RIFF", language="en", trace_id="t")
        assert found.text == "hello you"
        assert texts(found.segments) == ["hello", "you"]
        (job,) = daemon.jobs
        assert job.audio == b"RIFF"
        assert job.data["language"] == "en"
        assert job.data["audio"]["encoding"] == "file"
        assert job.data["job_id"] == found.job_id
        assert not job.data["stream"]


def test_every_kind_of_audio_reaches_the_daemon(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(b"samples")
    with FakeDaemon(path, [answer("x")]) as daemon, Client(str(path)) as client:
        client.transcribe(file)
        client.transcribe(io.BytesIO(b"samples"))
        client.transcribe(np.array([1, 2], np.int16), sample_rate=8000)
        assert [job.audio for job in daemon.jobs] == [b"samples", b"samples", b"\1\0\2\0"]
        assert daemon.jobs[2].data["audio"]["encoding"] == "pcm_s16le"
        assert daemon.jobs[2].data["audio"]["sample_rate"] == 8000


def test_calls_in_turn_share_a_connection(path: Path) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon, Client(str(path)) as client:
        client.ping()
        client.transcribe(b"")
        assert client.status() == STATUS
        assert client.status(crashes=True) == STATUS
        assert [asked.data["crashes"] for asked in daemon.requests[2:]] == [False, True]
        assert client.describe() == INFO
        assert {request.connection for request in daemon.requests} == {0}
        assert repr(client) == f"<Client {path} idle=1>"


def test_segments_come_while_the_job_runs(path: Path) -> None:
    with (
        FakeDaemon(path, [begin("a", "b")]) as daemon,
        Client(str(path)) as client,
        client.stream(b"", job_id="j") as stream,
    ):
        assert stream.job_id == "j"
        assert texts([next(stream), next(stream)]) == ["a", "b"]
        with pytest.raises(RuntimeError, match="once all segments"):
            _ = stream.transcript
        assert client.cancel("j") == 1
        with pytest.raises(Cancelled):
            next(stream)
        assert texts(stream) == []
        daemon.wait_for("cancel")


def test_a_stream_ends_with_the_transcript(path: Path) -> None:
    with FakeDaemon(path, [answer("a", "b")]), Client(str(path)) as client:
        stream = client.stream(b"")
        assert texts(stream) == ["a", "b"]
        assert stream.transcript.text == "a b"


def test_progress_is_told(path: Path) -> None:
    heard: list[Progress] = []
    with FakeDaemon(path, [answer("a", "b")]), Client(str(path)) as client:
        client.transcribe(b"", on_progress=heard.append)
    assert [(p.audio_seconds_done, p.audio_seconds) for p in heard] == [(1.0, 2.0), (2.0, 2.0)]


@pytest.mark.parametrize("how", ["close", "drop", "break"])
def test_a_stream_left_early_cancels_its_job(path: Path, how: str) -> None:
    with FakeDaemon(path, [begin("a", "b"), answer("x")]) as daemon, Client(str(path)) as client:
        stream = client.stream(b"")
        next(stream)
        match how:
            case "close":
                stream.close()
            case "drop":
                del stream
            case "break":
                with stream:
                    pass
        daemon.wait_for_hang_up()
        assert client.transcribe(b"").text == "x"


def test_a_stream_that_was_never_asked_submits_nothing(path: Path) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon, Client(str(path)) as client:
        client.stream(b"").close()
        assert daemon.requests == []


def test_busy_is_waited_out(path: Path) -> None:
    script = [busy(1), fail("shutting-down", retry_after_ms=1), busy(1), answer("x")]
    with FakeDaemon(path, script) as daemon, Client(str(path)) as client:
        assert client.transcribe(b"RIFF", timeout=PATIENCE).text == "x"
        assert [job.audio for job in daemon.jobs] == [b"RIFF"] * 4
        assert len({job.data["job_id"] for job in daemon.jobs}) == 1
        left = [job.data["timeout_ms"] for job in daemon.jobs]
        assert left == sorted(left, reverse=True)


def test_busy_past_the_timeout_is_told(path: Path) -> None:
    with FakeDaemon(path, [busy(60_000)]), Client(str(path)) as client:
        with pytest.raises(Busy) as caught:
            client.transcribe(b"", timeout=5)
        assert caught.value.retry_after_ms == 60_000


def test_a_connection_too_many_is_waited_out(path: Path) -> None:
    script = [refuse_connection("busy", retry_after_ms=1), answer("x")]
    with FakeDaemon(path, script) as daemon, Client(str(path)) as client:
        assert client.transcribe(b"").text == "x"
        assert [job.connection for job in daemon.jobs] == [0, 1]


@pytest.mark.parametrize("ending", [hang_up, hang_up_after("a")])
def test_a_job_survives_a_daemon_that_went_away(path: Path, ending: Behaviour) -> None:
    with FakeDaemon(path, [ending, ending, answer("a", "b")]) as daemon:
        with Client(str(path)) as client:
            assert texts(client.stream(b"RIFF")) == ["a", "b"]
        assert [job.audio for job in daemon.jobs] == [b"RIFF"] * 3


def test_a_job_that_loses_every_daemon_is_given_up(path: Path) -> None:
    with FakeDaemon(path, [hang_up]) as daemon, Client(str(path)) as client:
        with pytest.raises(ConnectionLost, match=f"{path} went away before it had answered"):
            client.transcribe(b"")
        assert len(daemon.jobs) == 3


def test_an_idle_connection_that_died_is_replaced(path: Path) -> None:
    client = Client(str(path))
    with FakeDaemon(path):
        client.ping()
    with FakeDaemon(path) as daemon, client:
        client.ping()
        assert client.status() == STATUS
        assert len(daemon.requests) == 2


def test_a_daemon_that_ends_in_mid_job_and_comes_back(path: Path) -> None:
    with Client(str(path)) as client:
        with FakeDaemon(path, [begin("a")]):
            stream = client.stream(b"")
            assert next(stream).text == "a"
        with FakeDaemon(path, [answer("a", "b")]):
            assert texts(stream) == ["b"]


@pytest.mark.parametrize(
    ("bytes_", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not acceptable JSON"),
        (b'{"type": "transcript", "data": {"job_id": "j"}}\n', "text: is missing"),
        (b'{"type": "transcript", "data_length": -1}\n', "data_length: must be"),
        (b'{"type": "segment", "payload_length": 5}\nhello', "payload_length: 5 is over"),
        (b'{"type": "error", "data": {"text": 1}}\n', "text: must be a string"),
        (b'{"type": "pong", "fds": 1}\n', "fds: 1 declared, 0 came"),
        (b"\0" * 20_000, "header line is longer"),
    ],
)
def test_garbage_is_one_clear_sentence(path: Path, bytes_: bytes, problem: str) -> None:
    with FakeDaemon(path, [raw(bytes_), answer("x")]), Client(str(path)) as client:
        with pytest.raises(ProtocolError, match=problem):
            client.transcribe(b"", job_id="j")
        assert client.transcribe(b"").text == "x"


def test_a_descriptor_from_the_daemon_is_an_error_and_not_a_leak(path: Path) -> None:
    def behave(peer: Any, request: dict[str, Any]) -> None:
        socket.send_fds(peer.sock, [frames.encode("pong")], [0])

    with FakeDaemon(path, [behave]), Client(str(path)) as client, pytest.raises(ProtocolError):
        client.transcribe(b"")


def test_a_silent_daemon_is_given_up_a_while_after_the_timeout(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asrd.client.attempts, "GRACE_SECONDS", 0.05)
    with FakeDaemon(path, [never]) as daemon, Client(str(path)) as client:
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0.05 s"):
            client.transcribe(b"", timeout=0.05)
        daemon.wait_for_hang_up()


def test_a_daemon_that_never_accepts_does_not_hold_status(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with listener, Client(str(path)) as client:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(2):  # the second meets a full backlog
            with pytest.raises(ConnectionLost, match=r"did not answer within 0.05 s"):
                client.status(timeout=0.05)
            with suppress(BlockingIOError):
                filler = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                filler.connect(str(path))
            filler.close()


def test_other_errors_are_the_answer(path: Path) -> None:
    with FakeDaemon(path, [fail("bad-audio", "not audio"), answer("x")]) as daemon:
        with Client(str(path)) as client:
            with pytest.raises(BadAudio, match="not audio"):
                client.transcribe(b"")
            assert client.transcribe(b"").text == "x"
        assert {job.connection for job in daemon.jobs} == {0}


def test_wrong_options_never_reach_the_daemon(path: Path) -> None:
    with Client(str(path)) as client:
        with pytest.raises(BadRequest, match="beam_size"):
            client.transcribe(b"", beam_size=99)
        with pytest.raises(TypeError):
            client.transcribe(b"", colour="red")  # type: ignore[call-arg]


def test_threads_may_share_a_client(path: Path) -> None:
    found: list[str] = []
    with FakeDaemon(path, [answer("x")]) as daemon, Client(str(path)) as client:

        def work() -> None:
            for _ in range(5):
                found.append(client.transcribe(b"").text)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["x"] * 40
        assert 1 <= len({job.connection for job in daemon.jobs}) <= 40


def test_cancel_from_another_thread(path: Path) -> None:
    with FakeDaemon(path, [never]) as daemon, Client(str(path)) as client:

        def cancel() -> None:
            daemon.wait_for("transcribe")
            client.cancel("j")

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(Cancelled) as caught:
            client.transcribe(b"", job_id="j")
        assert caught.value.job_id == "j"
        thread.join()
        assert client.cancel("j") == 0


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_has_the_path_and_its_own_connections(path: Path, copied: Any) -> None:
    with FakeDaemon(path, [answer("x")]) as daemon, Client(str(path)) as client:
        client.ping()
        with copied(client) as copy_:
            assert repr(copy_) == f"<Client {path} idle=0>"
            copy_.ping()
            client.ping()
            assert [request.connection for request in daemon.requests] == [0, 1, 0]
        client.close()
        with copied(client) as copy_:
            # A copy of a closed one is open.
            copy_.ping()
            assert repr(copy_) == f"<Client {path} idle=1>"


@pytest.mark.parametrize("copied", COPIES)
def test_a_transcript_can_be_copied(path: Path, copied: Any) -> None:
    with FakeDaemon(path, [answer("a", "b")]), Client(str(path)) as client:
        found = client.transcribe(b"")
        assert copied(found) == found


@pytest.mark.parametrize("copied", COPIES)
def test_a_stream_cannot_be_copied(path: Path, copied: Any) -> None:
    with FakeDaemon(path, [begin("a")]), Client(str(path)) as client:
        with client.stream(b"") as stream:
            next(stream)
            with pytest.raises(TypeError, match="SegmentStream belongs to one process"):
                copied(stream)


def test_a_dropped_client_hangs_up(path: Path) -> None:
    with FakeDaemon(path) as daemon:
        Client(str(path)).ping()
        daemon.wait_for_hang_up()


def test_an_interrupt_cancels_the_job(path: Path) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupt

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with FakeDaemon(path, [never, answer("x")]) as daemon, Client(str(path)) as client:

            def signal_main() -> None:
                daemon.wait_for("transcribe")
                os.kill(os.getpid(), signal.SIGUSR1)

            thread = threading.Thread(target=signal_main)
            thread.start()
            with pytest.raises(Interrupt):
                client.transcribe(b"")
            thread.join()
            daemon.wait_for_hang_up()
            assert client.transcribe(b"").text == "x"
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_the_blocking_client_imports_nothing_heavy() -> None:
    code = """
import sys
from asrd import Client
heavy = {"numpy", "faster_whisper", "ctranslate2", "av", "onnxruntime", "anyio", "asyncio"}
print(sorted(heavy & set(sys.modules)))
from asrd import AsyncClient
print(sorted(heavy & set(sys.modules)))
"""
    assert run_python(code).stdout.split("\n")[:2] == ["[]", "['anyio']"]
