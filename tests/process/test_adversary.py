"""The front against hostile peers and exhausted machines: only the culprit is affected."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asrd.demo import SAMPLES
from asrd.errors import Code
from asrd.wire import frames
from tests.support.daemons import Daemon, Front
from tests.support.raw import HELLO, PCM, SECOND, Peer, done, memfd, wait_for
from tests.support.users import START

WORKER_CODES = [Code.BAD_AUDIO, Code.OUT_OF_MEMORY, Code.TOO_LARGE, Code.INTERNAL]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Front(tmp_path, "0", config="queue_max = 2\nmax_wait_seconds = 20") as daemon:
        yield daemon


@contextmanager
def no_descriptor_left(front: Front) -> Iterator[None]:
    """The front keeps its descriptors, and gets no other."""
    pid = front.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_worker_lost_without_free_descriptors_is_found_again(front: Front) -> None:
    with front.connect() as client:
        with front.ready() as worker:
            client.ask()
            client.expect("accepted")
            worker.start_job()
            with no_descriptor_left(front):
                worker.close()
                wait_for("the loss in the log", lambda: "worker 0: lost" in front.log)
                # A whole round of the search for workers.
                wait_for("the trouble in the log", lambda: "cannot look for workers" in front.log)
                client.send("status")
                assert [w["state"] for w in client.expect("status")["workers"]] == ["starting"]
        with front.ready() as worker:
            worker.serve_job()
            assert client.answer("a").data["attempts"] == 2


def test_audio_without_a_free_descriptor_is_busy(front: Front) -> None:
    with front.ready() as worker, front.connect() as client, front.connect() as other:
        other.send("ping")
        other.expect("pong")
        client.ask("runs")
        client.expect("accepted")
        with no_descriptor_left(front):
            client.ask("inline")
            error = client.expect("error")
            assert (error["code"], error["job_id"]) == (Code.BUSY, "inline")
            client.send("audio-start", START)
            client.send("audio-chunk", START, SECOND)
            client.send("audio-stop")
            assert client.expect("error")["code"] == Code.BUSY
            with memfd(SECOND) as fd:
                other.send("transcribe", {"audio": PCM}, fds=(fd.fileno(),))
                # The descriptor is lost, and with it the framing.
                assert other.expect("error")["code"] == Code.BUSY
                assert other.at_end()
        worker.serve_job()
        assert client.answer("runs").type == "transcript"


def test_front_raises_its_descriptor_limit_to_the_hard_one(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 100, hard))
    try:
        with Front(tmp_path) as front:
            limits = resource.prlimit(front.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits == (hard, hard)


def test_client_waits_while_no_descriptor_is_free(front: Front) -> None:
    front.status()
    with no_descriptor_left(front):
        late = Peer.connect(front.socket)
        late.send("ping")
        wait_for("the trouble in the log", lambda: "cannot accept" in front.log)
        wait_for("some more tries", lambda: "cannot look for workers" in front.log)
    with late:
        late.expect("pong")
    assert front.log.count("cannot accept") == 1


def test_crowd_at_the_status_socket_leaves_the_main_one_open(tmp_path: Path) -> None:
    public = str(tmp_path / "status.sock")
    config = f"status_socket = '{public}'\nconnections_max = 2\nstatus_connections_max = 3\n"
    with Front(tmp_path, config=config + "status_connections_max_per_user = 2") as front:
        assert Path(public).stat().st_mode & 0o777 == 0o666
        assert Path(front.socket).stat().st_mode & 0o777 == 0o660
        with Peer.connect(public) as one, Peer.connect(public) as two:
            for stranger in (one, two):
                stranger.send("ping")
                stranger.expect("pong")
            with Peer.connect(public) as surplus:
                assert (
                    f"user {os.getuid()} is reached (connections: 2)"
                    in surplus.expect("error")["text"]
                )
            with front.connect() as client, front.connect() as other:
                for member in (client, other):
                    member.send("ping")
                    member.expect("pong")
                with front.connect() as surplus:
                    assert surplus.expect("error")["code"] == Code.BUSY
                    assert surplus.at_end()
    assert not Path(public).exists()


def test_status_socket_refuses_long_events(tmp_path: Path) -> None:
    public = str(tmp_path / "status.sock")
    with Front(tmp_path, config=f"status_socket = '{public}'"), Peer.connect(public) as stranger:
        stranger.send("ping", {"text": "x" * 5000})
        assert "over the limit of 4096" in stranger.expect("error")["text"]
        assert stranger.at_end()


@pytest.mark.parametrize("code", ["cancelled", "busy", "worker-crashed", "invented", *WORKER_CODES])
def test_worker_cannot_answer_with_a_code_of_the_front(front: Front, code: str) -> None:
    """Its own codes reach the client."""
    with front.ready() as worker, front.connect() as client:
        client.ask()
        job = worker.start_job()
        worker.send("failed", {"key": job["key"], "code": code, "text": "why not"})
        error = client.answer("a").data
        if code in WORKER_CODES:
            expected = (code, "why not")
        else:
            expected = (Code.INTERNAL, f"its worker answered {code}: why not")
        assert (error["code"], error["text"]) == expected


def test_front_pauses_before_it_reconnects_to_a_worker(front: Front) -> None:
    started = time.monotonic()
    for _ in range(11):
        with front.accept() as worker:
            worker.send("hello", HELLO)
    assert time.monotonic() - started > 10 * 0.05


def test_worker_death_during_drain_costs_one_retry(tmp_path: Path) -> None:
    with (
        Daemon(tmp_path, config="[worker]\ncpu_threads = 1\n") as daemon,
        daemon.connect() as client,
        open(SAMPLES / "en-minute.flac", "rb") as file,
    ):
        daemon.wait_until_ready()
        asked = {"job_id": "a", "audio": {"encoding": "file"}, "language": "en", "stream": True}
        client.send("transcribe", asked, fds=(file.fileno(),))
        client.expect("accepted")
        client.expect("progress")
        worker = daemon.pid_of()
        daemon.process.send_signal(signal.SIGTERM)
        wait_for("the front to stop", lambda: "when every accepted job" in daemon.log)
        os.kill(worker, signal.SIGKILL)
        answer = client.answer("a")
        assert (answer.type, answer.data["attempts"]) == ("transcript", 2), answer.data


def test_client_that_half_closes_gets_its_answer(front: Front) -> None:
    """`socat` does so at the end of its input."""
    with front.ready() as worker, front.connect() as client:
        client.ask()
        client.sock.shutdown(socket.SHUT_WR)
        client.expect("accepted")
        job = worker.start_job()
        worker.send_raw(frames.encode("done", done(job["key"], text="x" * 1_000_000)))
        assert len(client.answer("a").data["text"]) == 1_000_000
        assert client.at_end()
        with front.connect() as leaving:
            leaving.ask()
            leaving.sock.shutdown(socket.SHUT_WR)
            worker.start_job()
        assert "key" in worker.expect("cancel")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_daemon_stopped_before_it_serves_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    daemon = Daemon(tmp_path)
    wait_for("its directory", lambda: list(tmp_path.glob("asrd-*")))
    daemon.stop(number)
    assert not Path(daemon.socket).exists()


def test_refused_stream_gets_one_error_with_its_job_id(front: Front) -> None:
    """One recording, one answer: the rest of a refused one causes no more errors."""
    with front.connect() as client:
        client.send("transcribe", {"job_id": "w", "trace_id": "t"})
        client.send("audio-start", START)
        client.send("audio-chunk", {**START, "rate": 8000}, SECOND)
        client.send("audio-chunk", START, SECOND)
        client.send("audio-stop")
        client.send("transcribe", {"job_id": "x"})
        client.send("audio-start", {**START, "width": 1})
        client.send("audio-chunk", START, SECOND)
        client.send("audio-stop")
        client.send("transcribe", {"job_id": "y"})
        client.send("audio-start", START)
        client.send("audio-stop")
        client.send("ping")
        for job_id, code in (
            ("w", Code.BAD_REQUEST),
            ("x", Code.BAD_REQUEST),
            ("y", Code.BAD_AUDIO),
        ):
            error = client.expect("error")
            assert (error["job_id"], error["code"]) == (job_id, code)
        client.expect("pong")


def test_refusals_do_not_fill_the_log(front: Front) -> None:
    started = time.monotonic()
    with front.connect() as client:
        for _ in range(200):
            client.send("cancel", {"job_id": "a b"})
            client.expect("error")
        lines = front.log.count("refused: bad-request")
        assert 1 <= lines <= 1 + (time.monotonic() - started)
        time.sleep(max(0, started + 1.1 - time.monotonic()))
        client.send("cancel", {"job_id": "a b"})
        client.expect("error")
    assert "others since the last that was logged" in front.log


FLOODS = {
    "tiny questions": b'{"type":"ping"}\n',
    "expensive questions": b'{"type":"status"}\n',
    "nonsense": b'{"type":"x"}\n',
}
# A process of its own: in a thread of the test's it would only hold up the test.
_FLOOD = """
import socket, sys, threading
def read():
    while sock.recv(1 << 20):
        pass
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    threading.Thread(target=read, daemon=True).start()
    while True:
        sock.sendall(sys.argv[2].encode() * 10_000)
"""


@pytest.mark.parametrize("kind", FLOODS)
def test_flooding_client_delays_no_other(front: Front, kind: str) -> None:
    """A flood once held the event loop for 10 s at a time, and the watchdog killed the front."""
    command = [sys.executable, "-c", _FLOOD, front.socket, FLOODS[kind].decode()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as flood, front.connect() as client:
        wait_for("the flood", lambda: _connections(client) == 2)
        waits = []
        for _ in range(5):
            started = time.monotonic()
            client.send("ping")
            client.expect("pong")
            waits.append(time.monotonic() - started)
        flood.kill()
    assert max(waits) < 2


def _connections(client: Peer) -> int:
    client.send("status")
    return int(client.expect("status")["connections"])
