"""A listener of TCP that was passed in: its peers have no credentials."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd.errors import Code
from tests.support.daemons import Front
from tests.support.raw import PATIENCE, Peer, done, wait_for

CONFIG = "queue_max = 9\nconnections_max_per_user = 3"


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def front(tmp_path: Path, tcp: socket.socket) -> Iterator[Front]:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "asrd.sock"))
        unix.listen(8)
        with Front(tmp_path, "0", config=CONFIG, passed=[unix, tcp]) as daemon:
            yield daemon


@contextlib.contextmanager
def connected(tcp: socket.socket) -> Iterator[Peer]:
    with Peer(socket.create_connection(tcp.getsockname(), PATIENCE)) as peer:
        yield peer


def shown(peer: Peer) -> object:
    peer.send("status")
    return peer.expect("status")["workers"][0]["jobs"][0]["job_id"]


def test_peers_without_credentials_are_strangers_to_each_other(
    front: Front, tcp: socket.socket
) -> None:
    with front.ready() as worker, connected(tcp) as one, connected(tcp) as other:
        one.ask("secret")
        one.expect("accepted")
        job = worker.start_job()
        assert (shown(one), shown(other)) == ("secret", None)
        other.send("cancel", {"job_id": "secret"})
        assert other.expect("cancelled")["jobs"] == 0
        worker.send("done", done(job["key"]))
        assert one.answer("secret").type == "transcript"
        assert "peer_address=127.0.0.1" in front.log
        # The report of a death follows the same rule.
        one.ask("deadly")
        one.expect("accepted")
        worker.start_job()
        worker.close()
        wait_for("the loss to be logged", lambda: "worker 0: lost" in front.log)
        for peer, seen in ((one, 1), (other, 0)):
            peer.send("status", {"crashes": True})
            assert len(peer.expect("status")["crashes"][0]["jobs"]) == seen


def test_one_address_may_not_take_all_connections(front: Front, tcp: socket.socket) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            peer = stack.enter_context(connected(tcp))
            peer.send("ping")
            peer.expect("pong")
        late = stack.enter_context(connected(tcp))
        error = late.expect("error")
        assert error["code"] == Code.BUSY
        assert error["text"] == "the limit for address 127.0.0.1 is reached (connections: 3)"
        assert late.at_end()
        assert front.status()["connections"] >= 4


def test_no_descriptor_can_be_passed(front: Front, tcp: socket.socket) -> None:
    with connected(tcp) as peer:
        peer.send_raw(b'{"type":"transcribe","data":{"audio":{"encoding":"file"}},"fds":1}\n')
        error = peer.expect("error")
        text = "fds: no descriptor can be passed over this socket"
        assert (error["code"], error["text"]) == (Code.BAD_REQUEST, text)
        assert peer.at_end()


def test_tcp_disconnect_cancels_the_job(front: Front, tcp: socket.socket) -> None:
    with front.ready() as worker:
        with connected(tcp) as peer:
            peer.ask("a")
            peer.expect("accepted")
            job = worker.start_job()
        assert worker.expect("cancel") == {"key": job["key"]}
        worker.send("failed", {"key": job["key"], "code": "cancelled", "text": "cancelled"})
        wait_for("the end", lambda: front.status()["jobs"]["failed"] == {"cancelled": 1})
