"""The end of the program: what it finishes, and what it refuses."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.fake_daemon import READY, Behaviour, FakeDaemon, answer, begin, never
from tests.support.http import HttpProgram, file, form, head, official, parsed, read, whole
from tests.support.raw import PATIENCE, wait_for


def test_stop_is_seen_before_it_happens_and_requests_finish(tmp_path: Path) -> None:
    running: list[Any] = []

    def late(*job: Any) -> None:
        running.append(job)

    with (
        FakeDaemon(tmp_path / "asrd.sock", [late], others=READY) as fake,
        HttpProgram(tmp_path, fake.path, "drain_seconds = 1") as program,
        ExitStack() as stack,
    ):
        assert program.get("/readyz").status == 200
        sock = stack.enter_context(program.connect())
        sock.sendall(whole(file()))
        fake.wait_for("transcribe")
        program.terminate()
        wait_for("it to be unready", lambda: program.get("/readyz").status == 503)
        assert b"stopping" in program.get("/readyz").body
        assert program.get("/healthz").status == 200
        wait_for("it to stop listening", lambda: not _listens(program))
        assert program.process.poll() is None
        answer("yes")(*running[0])
        assert b'"yes"' in read(sock)
        assert program.process.wait(PATIENCE) == 0


def _listens(program: HttpProgram) -> bool:
    try:
        program.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def test_further_signals_end_it_at_once(tmp_path: Path) -> None:
    with (
        FakeDaemon(tmp_path / "asrd.sock", [never]) as fake,
        HttpProgram(tmp_path, fake.path, "drain_seconds = 3600") as program,
    ):
        with program.connect() as sock:
            sock.sendall(whole(file()))
            fake.wait_for("transcribe")
            program.terminate()
            wait_for("the first signal", lambda: b"stopping" in program.get("/readyz").body)
            program.terminate()
            wait_for("the second signal", lambda: not _listens(program))
            os.kill(program.process.pid, signal.SIGINT)
            assert program.process.wait(PATIENCE) == 0


def test_manager_is_told_when_it_is_ready(tmp_path: Path, manager: socket.socket) -> None:
    with HttpProgram(tmp_path, str(tmp_path / "asrd.sock"), "drain_seconds = 0"):
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_upload_that_is_not_complete_is_sent_again_elsewhere(tmp_path: Path, tcp: bool) -> None:
    settings = "drain_seconds = 0\nstop_seconds = 3600"
    with HttpProgram(tmp_path, str(tmp_path / "asrd.sock"), settings) as program:
        with program.connect_tcp() if tcp else program.connect() as sock:
            sock.sendall(head(10 << 20) + form(file(bytes(1 << 20)))[:-10])
            wait_for("the upload", lambda: recordings(program))
            program.terminate()
            found = parsed(read(sock))
        assert (found.status, found.error["code"]) == (503, "shutting-down")
        assert (found.headers["retry-after"], found.headers["x-should-retry"]) == ("1", "true")
        assert program.process.wait(PATIENCE) == 0


def recordings(program: HttpProgram) -> int:
    """The memfds that the program has."""
    links = Path(f"/proc/{program.process.pid}/fd").iterdir()
    return sum("memfd" in str(link.readlink()) for link in links)


@pytest.mark.parametrize(
    ("behaviour", "stream", "raised"),
    [(never, False, openai.InternalServerError), (begin("one"), True, openai.APIError)],
)
def test_request_that_lasts_too_long_is_asked_again(
    tmp_path: Path, behaviour: Behaviour, stream: bool, raised: type[openai.APIError]
) -> None:
    with (
        FakeDaemon(tmp_path / "asrd.sock", [behaviour]) as fake,
        HttpProgram(tmp_path, fake.path, "drain_seconds = 0\nstop_seconds = 0.2") as program,
        official(program) as client,
        ThreadPoolExecutor() as pool,
    ):

        def ask() -> list[Any]:
            create: Any = client.audio.transcriptions.create
            return list(create(model="whisper-1", file=b"audio", stream=stream))

        asked = pool.submit(ask)
        fake.wait_for("transcribe")
        program.terminate()
        with pytest.raises(raised, match="asrd-http is stopping") as caught:
            asked.result(PATIENCE)
        assert caught.value.code == "shutting-down"
        fake.wait_for_hang_up()
        assert program.process.wait(PATIENCE) == 0
