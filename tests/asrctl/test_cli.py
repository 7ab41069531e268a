"""asrctl, but for `transcribe` itself, against a daemon that misbehaves on request."""

import errno
import json
import os
import pty
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl import cli
from asrd.asrctl.cli import main
from asrd.exitcodes import Exit
from asrd.version import __version__
from tests.support.fake_daemon import INFO, PATIENCE, Behaviour, FakeDaemon, Peer, never, raw
from tests.support.subprocesses import read_terminal, started


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "asrd.sock"
    monkeypatch.setenv("ASRD_SOCKET", str(path))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"samples")
    return str(path)


def snapshot(state: str) -> dict[str, Behaviour]:
    return {"status": lambda peer, data: peer.send("status", state=state, workers=[])}


def test_status(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeDaemon(path):
        assert main(["status"]) == Exit.OK
        assert capsys.readouterr().out.startswith("asrd 1 · ok · up 0 ms\n\nqueue  0 of 0")
        assert main(["status", "--json"]) == Exit.OK
        assert json.loads(capsys.readouterr().out)["state"] == "ok"


def test_status_asks_for_crashes_only_if_told_to(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeDaemon(path) as daemon:
        assert main(["status", "--crashes"]) == Exit.OK
        assert capsys.readouterr().out == "no worker has died since asrd was started\n"
        assert main(["status", "--json", "--crashes"]) == Exit.OK
        assert main(["status"]) == Exit.OK
        assert [request.data["crashes"] for request in daemon.requests] == [True, True, False]


def test_health_waits_for_an_answer_as_long_as_told(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeDaemon(path, others={"status": never_at_all}):
        assert main(["health", "--timeout", "0.1"]) == Exit.UNREACHABLE
    assert capsys.readouterr().out == (
        f"unreachable: the daemon at {path} did not answer within 0.1 s\n"
    )


def never_at_all(peer: Peer, request: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("state", "code"), [("ok", 0), ("degraded", 1), ("unavailable", 2), ("new", 2)]
)
def test_health(path: Path, state: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeDaemon(path, others=snapshot(state)):
        assert main(["health"]) == code
    assert capsys.readouterr().out == (
        f"{state}: 0/0 workers ready · queue 0/0 · 0 done · 0 failed\n"
    )


@pytest.mark.parametrize("answering", [None, raw(b"garbage\n"), raw(b'{"type": "status"}\n')])
def test_a_daemon_that_makes_no_sense_is_not_healthy(
    path: Path, answering: Behaviour | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if answering is None:
        code = main(["health"])
    else:
        with FakeDaemon(path, others={"status": answering}):
            code = main(["health"])
    assert code == Exit.UNREACHABLE
    out, err = capsys.readouterr()
    assert out.startswith("unreachable: ")
    assert out.count("\n") == 1
    assert err == ""


def test_the_short_commands(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeDaemon(path, [never]):
        assert main(["ping"]) == Exit.OK
        assert re.fullmatch(rf"{path} answered in \d+\.\d\d ms\n", capsys.readouterr().out)
        assert main(["describe"]) == Exit.OK
        assert json.loads(capsys.readouterr().out) == INFO
        assert main(["cancel", "nobody"]) == Exit.FAILED
        assert capsys.readouterr().err == "asrctl: there is no job nobody of yours\n"


def test_cancel(path: Path, recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeDaemon(path, [never]) as daemon:
        asrctl = started("transcribe", recording)
        (job,) = daemon.wait_for("transcribe")
        assert main(["cancel", job.data["job_id"]]) == Exit.OK
        assert capsys.readouterr().out == "cancelled 1 job\n"
        _, err = asrctl.communicate(None, PATIENCE)
        assert err == f"asrctl: {recording}: cancelled\n".encode()
        assert asrctl.returncode == Exit.CANCELLED


def test_watch_goes_on_while_the_daemon_is_away(path: Path) -> None:
    asrctl = started("watch", "--interval", "0.1")
    assert asrctl.stdout is not None
    assert b"unreachable: " in asrctl.stdout.readline()
    with FakeDaemon(path):
        while b" ok: 0/0 workers ready" not in asrctl.stdout.readline():
            pass
        asrctl.send_signal(signal.SIGINT)
        _, err = asrctl.communicate(None, PATIENCE)
    assert (asrctl.returncode, err) == (Exit.OK, b"")


def test_watch_redraws_a_terminal(path: Path) -> None:
    terminal, other_end = pty.openpty()
    with FakeDaemon(path):
        asrctl = started("watch", "--interval", "0.1", stdout=other_end, stderr=other_end)
        os.close(other_end)
        seen = read_terminal(terminal, lambda seen: seen.count("no workers") == 2)
        assert seen.count("\x1b[H\x1b[2Jasrd 1 · ok") == 2
        asrctl.send_signal(signal.SIGINT)
        assert asrctl.wait(PATIENCE) == Exit.OK
    os.close(terminal)


@pytest.mark.parametrize("interval", ["0", "nan", "soon"])
def test_an_interval_must_be_one(interval: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["watch", "--interval", interval])
    assert "must be 0.1 to 86400 seconds" in capsys.readouterr().err


def test_the_public_socket_answers_those_outside_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Tests may run as root, whom no mode keeps out.
    real, public = socket.socket.connect, tmp_path / "status.sock"

    def refuse_the_main_one(self: socket.socket, address: str) -> None:
        if address != str(public):
            raise PermissionError(errno.EACCES, "Permission denied")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse_the_main_one)
    monkeypatch.setattr(cli, "STATUS_SOCKET", str(public))
    monkeypatch.delenv("ASRD_SOCKET", raising=False)
    with FakeDaemon(public):
        assert main(["status"]) == Exit.OK
        assert main(["health"]) == Exit.OK
        assert main(["ping"]) == Exit.OK
        assert str(public) in capsys.readouterr().out
        assert main(["cancel", "j"]) == Exit.UNREACHABLE
        assert main(["ping", "--socket", "/named"]) == Exit.UNREACHABLE
    assert main(["ping"]) == Exit.UNREACHABLE
    for line in capsys.readouterr().err.splitlines():
        assert line.endswith("are you in the group asr?")


def test_the_socket_may_be_named_on_either_side(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASRD_SOCKET")
    with FakeDaemon(path) as daemon:
        assert main(["--socket", str(path), "ping"]) == Exit.OK
        assert main(["ping", "--socket", str(path)]) == Exit.OK
        assert len(daemon.requests) == 2


def test_the_doctor_looks_at_the_named_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / "other.sock"
    assert main(["doctor", "--socket", str(named)]) == Exit.FAILED
    assert f"the socket {named} is missing" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"asrctl {__version__}\n"
