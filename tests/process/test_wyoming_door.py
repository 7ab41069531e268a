"""The door for Wyoming clients, over TCP: strangers of all kinds, and what they can't do."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd.errors import Code
from asrd.wire import frames
from tests.support.daemons import Front, descriptors, environment
from tests.support.raw import HELLO, PATIENCE, PCM, SECOND, Peer, done, wait_for
from tests.support.users import START

CONFIG = """
queue_max = 20
wyoming_connections_max = 5
wyoming_connections_max_per_address = 3
wyoming_max_audio_seconds = 10
frame_timeout_seconds = 1
"""
# Another address of this host, which is no other user.
ELSEWHERE = "127.0.0.9"


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    """Passed in beside the main socket, under its name: it is a door for strangers all the same."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def front(tmp_path: Path, tcp: socket.socket) -> Iterator[Front]:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "asrd.sock"))
        unix.listen(8)
        with Front(tmp_path, "0", config=CONFIG, passed=[unix, tcp]) as daemon:
            yield daemon


def reach(tcp: socket.socket, source: str = "127.0.0.1") -> Peer:
    return Peer(socket.create_connection(tcp.getsockname(), PATIENCE, (source, 0)))


def record(peer: Peer, seconds: int = 1) -> None:
    peer.send("audio-start", START)
    for _ in range(seconds):
        peer.send("audio-chunk", START, SECOND)
    peer.send("audio-stop")


def refusal(peer: Peer) -> tuple[str, str]:
    error = peer.expect("error")
    return error["code"], error["text"]


def connections(member: Peer) -> int:
    member.send("status")
    return int(member.expect("status")["connections"])


def ping(peer: Peer) -> None:
    peer.send("ping")
    peer.expect("pong")


# --- what it answers ------------------------------------------------------------------------------


def test_conversation_of_a_voice_assistant(front: Front, tcp: socket.socket) -> None:
    """It waits for the models right after the start, as Home Assistant asks only once."""
    with front.accept() as worker:
        with reach(tcp) as peer:
            peer.send("describe")
            worker.send("loading", {"model": "tiny", "languages": ["en", "pt"], "pid": 1})
            (program,) = peer.expect("info")["asr"]
            assert program["models"][0]["languages"] == ["en", "pt"]
        worker.send("hello", HELLO)
        front.wait_for_state("ready")
        with reach(tcp) as peer:
            peer.send("select-program", {"name": "asrd"})
            asked = {"language": "en-US", "context": {"a": [1]}, "vad_sensitivity": "relaxed"}
            peer.send("transcribe", asked)
            record(peer)
            job = worker.serve_job("turn on the light")
            assert job["options"]["language"] == "en"
            assert job["max_audio_seconds"] == 10
            assert peer.expect("transcript")["text"] == "turn on the light"


def test_other_program_is_an_error(front: Front, tcp: socket.socket) -> None:
    with reach(tcp) as peer:
        peer.send("select-program", {"name": "piper"})
        text = "select-program: name: must be asrd, the only program here"
        assert refusal(peer) == (Code.BAD_REQUEST, text)
        ping(peer)


def test_tcp_disconnect_cancels_the_job(front: Front, tcp: socket.socket) -> None:
    with front.ready() as worker:
        with reach(tcp) as peer:
            peer.ask("a")
            peer.expect("accepted")
            job = worker.start_job()
        assert worker.expect("cancel") == {"key": job["key"]}
        worker.send("failed", {"key": job["key"], "code": "cancelled", "text": "cancelled"})
        wait_for("the end", lambda: front.status()["jobs"]["failed"] == {"cancelled": 1})


def test_port_of_another_program(tmp_path: Path, tcp: socket.socket) -> None:
    place = f"127.0.0.1:{tcp.getsockname()[1]}"
    env = environment(tmp_path) | {"ASRD_FRONT_WYOMING": place}
    path = tmp_path / "asrd.sock"
    for command in ("serve", "run"):
        argv = [sys.executable, "-m", "asrd.main", command, "--socket", str(path)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=PATIENCE)
        text = f"cannot listen at {place}: Address already in use"
        assert (done.returncode, done.stderr.splitlines()[-1].endswith(text)) == (78, True)
        assert not path.exists()


# --- what it refuses ------------------------------------------------------------------------------


def test_strangers_neither_see_nor_cancel_jobs_of_others(front: Front, tcp: socket.socket) -> None:
    with front.ready() as worker, front.connect() as member, reach(tcp) as one, reach(tcp) as other:
        one.ask("secret")
        one.expect("accepted")
        job = worker.start_job()
        member.ask("mine")
        member.expect("accepted")
        other.send("status", {"crashes": True})
        text = "status: is not answered here: ask over the daemon's own socket"
        assert refusal(other) == (Code.BAD_REQUEST, text)
        for job_id in ("secret", "mine", "none"):
            other.send("cancel", {"job_id": job_id})
            assert other.expect("cancelled")["jobs"] == 0
        worker.send("done", done(job["key"]))
        assert one.answer("secret").type == "transcript"
        worker.serve_job()
        assert member.answer("mine").type == "transcript"
        assert "peer_address=127.0.0.1" in front.log


def test_nobody_speaks_for_others(front: Front, tcp: socket.socket) -> None:
    """A name would be a new user, with a share of its own."""
    with reach(tcp) as peer:
        peer.send("transcribe", {"user": "root", "audio": PCM}, SECOND)
        text = "transcribe: user: may be named by a gateway only (setting `gateways`)"
        assert refusal(peer) == (Code.BAD_REQUEST, text)


def test_no_descriptor_can_be_passed(front: Front, tcp: socket.socket) -> None:
    with reach(tcp) as peer:
        peer.send_raw(b'{"type":"transcribe","data":{"audio":{"encoding":"file"}},"fds":1}\n')
        text = "fds: no descriptor can be passed over this socket"
        assert refusal(peer) == (Code.BAD_REQUEST, text)
        assert peer.at_end()


def test_recordings_are_shorter_than_at_the_main_socket(front: Front, tcp: socket.socket) -> None:
    with reach(tcp) as peer:
        record(peer, 11)
        assert refusal(peer) == (
            Code.TOO_LARGE,
            "audio-stop: audio: 11 s are over the limit of 10 s",
        )
        assert peer.at_end()
    with reach(tcp) as peer:
        peer.send_raw(b'{"type":"transcribe","data":{"audio":{}},"payload_length":9999999}\n')
        text = "payload_length: 9999999 is over the limit of 1920000"
        assert refusal(peer) == (Code.BAD_REQUEST, text)
        assert peer.at_end()
    with front.ready() as worker, front.connect() as member:
        member.ask("long", SECOND * 11)
        worker.serve_job()
        assert member.answer("long").type == "transcript"


# --- crowds ---------------------------------------------------------------------------------------


def test_one_address_may_not_take_all_connections(front: Front, tcp: socket.socket) -> None:
    with contextlib.ExitStack() as stack:
        for source in ("127.0.0.1", "127.0.0.1", ELSEWHERE):
            ping(stack.enter_context(reach(tcp, source)))
        late = stack.enter_context(reach(tcp, ELSEWHERE))
        text = "the limit for address 127.0.0.1 is reached (connections: 3)"
        assert refusal(late) == (Code.BUSY, text)
        assert late.at_end()
        # A crowd at this door leaves the others open.
        with front.connect() as member:
            ping(member)
    with contextlib.closing(reach(tcp)) as again:
        wait_for("a free place", lambda: front.status()["connections"] <= 2)
        ping(again)


def test_one_address_has_the_places_of_one_user(front: Front, tcp: socket.socket) -> None:
    """The queue's share of a user: 4 by default."""
    with front.ready(slots=1) as worker, reach(tcp) as one, front.connect() as other:
        for number in range(5):
            one.ask(str(number))
        assert [one.receive_kind() for _ in range(5)] == ["accepted"] * 5
        with reach(tcp, ELSEWHERE) as same:
            same.ask("5")
            assert same.receive_kind() == "error"
        other.ask("theirs")
        other.expect("accepted")
        worker.serve_job()
        # The one who waited for nothing yet has the next turn.
        assert worker.serve_job()["job_id"] == "theirs"


def test_slow_and_silent_peers_hold_no_place(front: Front, tcp: socket.socket) -> None:
    """An event has a second to arrive here, and so has the next chunk of a recording."""
    with reach(tcp) as drip, reach(tcp) as silent:
        silent.send("transcribe", {})
        silent.send("audio-start", START)
        for byte in b'{"type": "audio-chu':
            # It may be cut off by now.
            with contextlib.suppress(OSError):
                drip.send_raw(bytes([byte]))
            time.sleep(0.1)
        assert refusal(drip)[0] == Code.BAD_REQUEST
        assert drip.at_end()
        assert refusal(silent)[0] == Code.BAD_REQUEST
        assert silent.at_end()
    wait_for("free places", lambda: front.status()["connections"] == 1)


def test_peers_that_come_and_go_leave_nothing_behind(front: Front, tcp: socket.socket) -> None:
    """Some leave in the middle of an event, some with a reset."""
    with front.ready(), front.connect() as member:
        wait_for("it to be alone", lambda: connections(member) == 1)
        before = descriptors(front.process.pid)
        for number in range(60):
            with reach(tcp) as peer:
                if number % 3 == 0:
                    peer.send_raw(frames.encode("audio-chunk", START, len(SECOND)) + b"x")
                elif number % 3 == 1:
                    peer.ask("a")
                    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
            started = time.monotonic()
            ping(member)
            assert time.monotonic() - started < 2
        wait_for("their descriptors to be closed", lambda: descriptors(front.process.pid) <= before)
