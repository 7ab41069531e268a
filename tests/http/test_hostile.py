"""Clients that break the rules of HTTP, or leave in the middle: each costs only itself."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from asrd.http.server import BEHIND_MAX, CHUNK_MIN, CHUNKS_FREE
from asrd.http.service import OTHERS_MAX, REFUSED_MAX
from tests.support.fake_daemon import FakeDaemon, answer, never
from tests.support.http import HttpProgram, ask, file, form, head, parsed, read, whole
from tests.support.procfs import tcp_timer
from tests.support.raw import wait_for


@pytest.fixture
def fake(daemon: Path) -> Any:
    with FakeDaemon(daemon, [answer("yes")]) as running:
        yield running


# --- behind a request -----------------------------------------------------------------------------

KINDS = {
    "keep-alive": whole(file()),
    "close": head(len(form(file())), "Connection: close") + form(file()),
    "HTTP/1.0": whole(file(), version="1.0"),
}


@pytest.mark.parametrize("together", [True, False], ids=["together", "later"])
@pytest.mark.parametrize("kind", KINDS)
def test_hang_up_behind_more_bytes_cancels_the_job(
    program: HttpProgram, daemon: Path, kind: str, together: bool
) -> None:
    with FakeDaemon(daemon, [never]) as fake, program.connect() as sock:
        sock.sendall(KINDS[kind] + (b"\r" if together else b""))
        fake.wait_for("transcribe")
        if not together:
            sock.sendall(b"\r")
            # Read before the end of the connection.
            assert program.get("/nowhere").status == 404
        sock.close()
        fake.wait_for_hang_up()


@pytest.mark.parametrize("kind", KINDS)
def test_more_bytes_behind_a_request_do_not_change_its_answer(
    program: HttpProgram, daemon: Path, kind: str
) -> None:
    jobs: list[Any] = []
    with (
        FakeDaemon(daemon, [lambda *job: jobs.append(job)]) as fake,
        program.connect() as sock,
    ):
        sock.sendall(KINDS[kind])
        fake.wait_for("transcribe")
        sock.sendall(b"nonsense\r\n\r\n")
        assert program.get("/nowhere").status == 404
        answer("yes")(*jobs[0])
        found = read(sock)
    assert found.startswith(b"HTTP/1.1 200") and b'"yes"' in found
    # What follows is the next request, unless this was the last one.
    assert found.count(b"HTTP/1.1 400") == (kind == "keep-alive")


def test_half_closed_connection_is_a_client_that_left(program: HttpProgram, daemon: Path) -> None:
    with FakeDaemon(daemon, [never]) as fake, program.connect() as sock:
        sock.sendall(whole(file()))
        fake.wait_for("transcribe")
        sock.shutdown(socket.SHUT_WR)
        fake.wait_for_hang_up()
        assert read(sock) == b""


def test_flood_behind_a_request_ends_it(program: HttpProgram, daemon: Path) -> None:
    with FakeDaemon(daemon, [never]) as fake, program.connect() as sock:
        sock.sendall(whole(file()))
        fake.wait_for("transcribe")
        with pytest.raises(OSError):
            for _ in range(1000):
                sock.sendall(bytes(BEHIND_MAX))
        fake.wait_for_hang_up()


@pytest.mark.parametrize("pieces", [1, 7])
def test_requests_that_follow_each_other_are_answered_in_turn(
    program: HttpProgram, fake: FakeDaemon, pieces: int
) -> None:
    request = whole(file(b"one")) + whole(file(b"two"))
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with program.connect() as sock:
        size = -(-len(request + last) // pieces)
        for start in range(0, len(request + last), size):
            sock.sendall((request + last)[start : start + size])
        found = read(sock)
    assert found.count(b"HTTP/1.1 200") == 3 and found.endswith(b"ok\n")
    assert [job.audio for job in fake.jobs] == [b"one", b"two"]


# --- no HTTP --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\0" * 1000, 400),
        (b"GET / SMTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 99_999, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 9_999, 431),
        (head(None) + b"zz\r\n", 400),
        (head(None) + b"4\r\nabcdefgh", 400),
        (head(None) + b"1" * 99 + b"\r\n", 400),
        (head(None) + b"1;" + b"a" * 99_999, 431),
    ],
)
def test_garbage_has_an_error_of_the_api_and_costs_only_itself(
    program: HttpProgram, fake: FakeDaemon, garbage: bytes, status: int
) -> None:
    with program.connect() as sock:
        sock.sendall(garbage)
        found = parsed(read(sock))
    assert (found.status, found.error["code"]) == (status, "bad-request")
    assert found.headers["x-should-retry"] == "false"
    assert found.error.keys() == {"message", "type", "param", "code"}
    assert program.post(file()).status == 200


@pytest.mark.parametrize(("size", "status"), [(1, 400), (CHUNK_MIN, 200)])
def test_tiny_chunks_are_refused_once_there_are_many(
    program: HttpProgram, fake: FakeDaemon, size: int, status: int
) -> None:
    body = form(file(bytes(2 * size * CHUNKS_FREE)))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    with program.connect() as sock:
        sock.sendall(head(None, "Connection: close") + chunks + b"0\r\n\r\n")
        found = parsed(read(sock))
    assert found.status == status
    assert status == 200 or "chunks of less than" in found.error["message"]


def test_garbage_behind_a_begun_answer_ends_the_connection(
    program: HttpProgram, fake: FakeDaemon
) -> None:
    with program.connect() as sock:
        sock.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 404"
        sock.sendall(b"nonsense\r\n")
        assert b"bad-request" not in read(sock)
    assert program.post(file()).status == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET http://asrd/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /%00%ff%0d%0a HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"BREW /status HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 200),
    ],
)
def test_odd_request_is_answered(
    program: HttpProgram, fake: FakeDaemon, request_: bytes, status: int
) -> None:
    with program.connect() as sock:
        sock.sendall(request_)
        assert sock.recv(12) == b"HTTP/1.1 %d" % status


def test_client_of_http_1_0_gets_its_answer(program: HttpProgram, fake: FakeDaemon) -> None:
    with program.connect() as sock:
        sock.sendall(whole(file(), version="1.0"))
        found = read(sock)
    assert found.startswith(b"HTTP/1.1 200") and found.endswith(b"}")


# --- crowds ---------------------------------------------------------------------------------------


def test_idle_connections_of_one_peer_shut_out_nobody_else(tmp_path: Path) -> None:
    settings = "drain_seconds = 0\nrequests_max = 1"
    half = 1 + OTHERS_MAX // 2
    with HttpProgram(tmp_path, str(tmp_path / "asrd.sock"), settings) as program:
        with ExitStack() as stack:
            for _ in range(half):
                stack.enter_context(program.connect())
            wait_for("the limit", lambda: program.get("/nowhere").status == 429)
            refused = program.get("/nowhere")
            assert refused.error["code"] == "rate_limit_exceeded"
            assert f"connections: {half}" in refused.error["message"]
            assert refused.headers["connection"] == "close"
            assert refused.headers["retry-after-ms"] == "1000"
            assert program.get_tcp("/nowhere").status == 404
            # Above the places for refusals nothing is read or answered.
            more = [stack.enter_context(program.connect()) for _ in range(REFUSED_MAX + 1)]
            assert any(read(sock) == b"" for sock in more[-1:])
            assert program.get_tcp("/nowhere").status == 404
        wait_for("room", lambda: program.get("/nowhere").status == 404)


def test_thousand_connections_at_once_have_an_answer_or_an_end(tmp_path: Path) -> None:
    with HttpProgram(tmp_path, str(tmp_path / "asrd.sock"), "drain_seconds = 0") as program:
        with ExitStack() as stack:
            socks = [stack.enter_context(program.connect()) for _ in range(1000)]
            for sock in socks:
                try:
                    sock.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                except BrokenPipeError:
                    continue
            starts = {read(sock)[:12] for sock in socks}
            assert ask(program.connect(), "/nowhere", "GET", b"").status == 404
    assert starts <= {b"HTTP/1.1 404", b"HTTP/1.1 429", b""}


def test_kernel_asks_over_tcp_whether_the_client_is_there(
    program: HttpProgram, fake: FakeDaemon
) -> None:
    """A host that lost its power says nothing, and kept its place for as long as its job ran."""
    with program.connect_tcp() as sock:
        port = sock.getsockname()[1]
        wait_for("the kernel's timer", lambda: tcp_timer(program.port, port) == "02")
