"""A restart of the front hands its clients and jobs over to the next one: they see a pause."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd import systemd
from asrd.errors import Code
from asrd.wire import frames
from tests.support.daemons import Daemon
from tests.support.raw import PATIENCE, PCM, SECOND, SHORT, TEXTS, Peer, until, wait_for
from tests.support.speech import long_recording

CONFIG = "[front]\nqueue_max = 8\n[worker]\ncpu_threads = 1\nbeam_size = 1\ntemperature = [0.0]\n"
START = {"rate": 16_000, "width": 2, "channels": 1}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("t")
    with Daemon(directory, "--wyoming", "127.0.0.1:0", config=CONFIG) as running:
        yield running


@pytest.fixture
def daemon(shared: Daemon) -> Daemon:
    """One for all tests that leave it running; some kill its front."""
    shared.wait_until_ready()
    return shared


def restart(daemon: Daemon) -> None:
    """Returns when the next front serves."""
    before = daemon.front_pid()
    daemon.process.send_signal(signal.SIGUSR2)
    wait_for("the next front", lambda: daemon.front_pid() != before)


def test_jobs_and_status_go_on_in_the_next_front(daemon: Daemon) -> None:
    worker = daemon.pid_of()
    with daemon.connect() as client, daemon.connect() as other:
        client.start_long("long", trace_id="t")
        other.ask_file("waits")
        other.ask("inline")
        for _ in range(2):
            other.expect("accepted")
        restart(daemon)
        client.send("ping", {"text": "x"})
        assert daemon.status()["jobs"]["accepted"] == 0
        assert other.transcript("waits")["text"] == TEXTS[SHORT]
        other.transcript("inline")
        assert client.transcript("long")["trace_id"] == "t"
        client.ask_file("next")
        assert client.transcript("next")["text"] == TEXTS[SHORT]
    assert daemon.pid_of() == worker
    assert "handed over: " in daemon.log and "taken over: " in daemon.log


def minutes_of_speech(seconds: int = 150) -> bytes:
    """PCM that is far from its end when its first segment comes."""
    audio, _ = long_recording(seconds, seed=1)
    return (audio * 32_767).astype("<i2").tobytes()


def test_long_job_repeats_no_finished_window(daemon: Daemon) -> None:
    minutes = minutes_of_speech()
    with daemon.connect() as client:
        client.ask("undisturbed", minutes)
        expected = client.transcript("undisturbed")
        client.ask("long", minutes, stream=True)
        events = until(client, "segment")
        restart(daemon)
        events += until(client, "transcript")
        assert daemon.status()["jobs"]["resumed"] == 1
    transcript = events[-1].data
    segments = [event.data for event in events if event.type == "segment"]
    assert (transcript["text"], transcript["attempts"]) == (expected["text"], 2)
    assert [each["segment"] for each in segments] == expected["segments"]


def test_upload_that_is_arriving_goes_on(daemon: Daemon) -> None:
    """At any place: in the header, the data, and the payload."""
    data = {"job_id": "a", "audio": PCM, "language": "en"}
    message = frames.encode("transcribe", data, len(SECOND)) + SECOND
    header = message.index(b"\n") + 1
    for place in (5, header + 5, len(message) - len(SECOND) + 1001):
        with daemon.connect() as client:
            client.send_raw(message[:place])
            restart(daemon)
            client.send_raw(message[place:])
            assert client.transcript("a")["duration_ms"] == 1000


def test_stream_that_is_arriving_goes_on(daemon: Daemon) -> None:
    with daemon.connect() as client:
        client.send("transcribe", {"job_id": "a", "language": "en"})
        client.send("audio-start", START)
        client.send("audio-chunk", START, SECOND)
        message = frames.encode("audio-chunk", START, len(SECOND)) + SECOND
        client.send_raw(message[:-1001])
        restart(daemon)
        client.send_raw(message[-1001:])
        client.send("audio-stop")
        assert client.transcript("a")["duration_ms"] == 2000


def test_live_stream_ends_with_an_error_and_its_connection_stays(daemon: Daemon) -> None:
    with daemon.connect() as client:
        client.send("transcribe", {"job_id": "a", "language": "en", "live": True})
        client.send("audio-start", START)
        client.send("audio-chunk", START, SECOND)
        restart(daemon)
        error = client.answer("a").data
        assert (error["code"], error["retryable"]) == (Code.SHUTTING_DOWN, True)
        client.send("audio-stop")
        client.ask("b")
        client.transcript("b")


def test_client_that_does_not_read_gets_all_its_answers(daemon: Daemon) -> None:
    with daemon.connect() as client:
        text = "x" * 4000
        count = 200
        for _ in range(count):
            client.send("ping", {"text": text})
        restart(daemon)
        for _ in range(count):
            assert client.expect("pong")["text"] == text


def test_many_restarts_under_load_lose_nothing(daemon: Daemon) -> None:
    clients = [daemon.connect() for _ in range(4)]
    for turn in range(5):
        for client in clients:
            client.ask_file(f"job-{turn}")
        restart(daemon)
        for client in clients:
            assert client.transcript(f"job-{turn}")["text"] == TEXTS[SHORT]
    for client in clients:
        client.close()


def test_crashed_front_has_nothing_to_hand_over(daemon: Daemon) -> None:
    before = daemon.front_pid()
    with daemon.connect() as client:
        client.start_long()
        os.kill(before, signal.SIGKILL)
        while client.receive() is not None:
            pass
    wait_for("the next front", lambda: daemon.front_pid() != before)


def test_wyoming_client_over_tcp_goes_on(daemon: Daemon) -> None:
    found = re.search(r"Wyoming clients are served at 127\.0\.0\.1:(\d+)", daemon.log)
    assert found is not None
    with Peer(socket.create_connection(("127.0.0.1", int(found[1])))) as client:
        client.send("audio-start", START)
        client.send("audio-chunk", START, SECOND)
        restart(daemon)
        client.send("audio-chunk", START, SECOND)
        client.send("audio-stop")
        client.expect("transcript")


def test_stop_right_after_a_restart_answers_everybody(tmp_path: Path) -> None:
    """SIGTERM reaches `asrd run` in the middle of the hand-over."""
    with Daemon(tmp_path, config=CONFIG) as daemon, daemon.connect() as client:
        daemon.wait_until_ready()
        client.ask("a", minutes_of_speech(), stream=True)
        until(client, "segment")
        daemon.process.send_signal(signal.SIGUSR2)
        wait_for("the hand-over", lambda: "handed over: " in daemon.log)
        daemon.process.send_signal(signal.SIGTERM)
        assert client.transcript("a")["attempts"] == 2
        assert daemon.process.wait(30) == 0


# Sends itself a signal where it imports a module.
INTERRUPTED = """
import os, sys
from asrd.main import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))

sys.meta_path.insert(0, Interrupting())
sys.exit(main(["serve", "--socket", sys.argv[3]]))
"""


@pytest.mark.parametrize("module", ["asrd.front.server", "anyio._backends._asyncio"])
def test_restart_that_follows_another_one_ends_a_starting_front(
    tmp_path: Path, module: str
) -> None:
    """At once, wherever it is: not by an exception, which an import may lose."""
    argv = [sys.executable, "-c", INTERRUPTED, module, str(int(systemd.RESTART_SIGNAL))]
    front = subprocess.run([*argv, str(tmp_path / "sock")], capture_output=True, timeout=PATIENCE)
    assert front.returncode == -systemd.RESTART_SIGNAL
    assert b"Traceback" not in front.stderr


@pytest.mark.parametrize("wrong", ["typo = 1", "status_socket = '/nowhere/status.sock'"])
def test_wrong_settings_are_found_before_the_hand_over(daemon: Daemon, wrong: str) -> None:
    """The front drains: without a next one, its clients would wait for nothing."""
    jobs, before = "abcde", len(daemon.log)
    with daemon.connect() as client:
        for job_id in jobs:
            client.ask(job_id, minutes_of_speech(65), stream=True)
        until(client, "segment")
        assert daemon.status()["queue"]["depth"] > 0
        (daemon.tmp / "asrd.toml").write_text(f"[front]\n{wrong}\n")
        daemon.process.send_signal(signal.SIGUSR2)
        wait_for("the drain", lambda: "no hand-over, since the next front" in daemon.log[before:])
        # Corrected and sent again: the drain goes on.
        daemon.process.send_signal(signal.SIGUSR2)
        answered = [until(client, "transcript")[-1].data["job_id"] for _ in jobs]
        assert sorted(answered) == [*jobs]
        assert client.at_end()
        (daemon.tmp / "asrd.toml").write_text(CONFIG)
    daemon.wait_until_serving()
