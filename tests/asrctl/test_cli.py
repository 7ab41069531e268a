"""asrctl's commands, except `transcribe`, against a daemon that misbehaves on request."""

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

from asrd.asrctl import asking
from asrd.asrctl.cli import main
from asrd.exitcodes import Exit
from asrd.version import __version__
from tests.support.fake_daemon import INFO, PATIENCE, STATUS, Behaviour, FakeDaemon, never, raw
from tests.support.status import in_state
from tests.support.subprocesses import read_terminal, started

Capture = pytest.CaptureFixture[str]


def test_status_shows_page_json_or_crashes(path: Path, capsys: Capture) -> None:
    def status(peer: Any, data: Any) -> None:
        peer.send("status", **STATUS, **({"crashes": []} if data["crashes"] else {}))

    with FakeDaemon(path, others={"status": status}) as daemon:
        assert main(["status"]) == Exit.OK
        assert capsys.readouterr().out.startswith("asrd 1 · ok · up 0 ms\n\nqueue  0 of 0")
        assert main(["status", "--json", "--crashes"]) == Exit.OK
        assert json.loads(capsys.readouterr().out)["state"] == "ok"
        assert main(["status", "--crashes"]) == Exit.OK
        assert capsys.readouterr().out == "no crash of a worker is known\n"
        assert [request.data["crashes"] for request in daemon.requests] == [False, True, True]


@pytest.mark.parametrize(
    ("state", "code"), [("ok", 0), ("degraded", 1), ("unavailable", 2), ("new", 2)]
)
def test_health_exits_with_the_state(path: Path, state: str, code: int, capsys: Capture) -> None:
    with FakeDaemon(path, others=in_state(state)):
        assert main(["health"]) == code
    assert capsys.readouterr() == (
        f"{state}: 0/0 workers ready · queue 0/0 · 0 done · 0 failed\n",
        "",
    )


@pytest.mark.parametrize(
    ("answering", "problem"),
    [
        (raw(b"garbage\n"), "unreachable: "),
        (raw(b'{"type": "status"}\n'), "unreachable: "),
        (lambda peer, data: None, "unreachable: the daemon at {path} did not answer within 0.2 s"),
    ],
)
def test_daemon_that_does_not_answer_correctly_is_unreachable(
    path: Path, answering: Behaviour, problem: str, capsys: Capture
) -> None:
    with FakeDaemon(path, others={"status": answering}):
        assert main(["health", "--timeout", "0.2"]) == Exit.UNREACHABLE
    out, err = capsys.readouterr()
    assert out.startswith(problem.format(path=path))
    assert (out.count("\n"), err) == (1, "")


def test_ping_describe_metrics_and_cancel_of_no_job(path: Path, capsys: Capture) -> None:
    with FakeDaemon(path, [never]):
        assert main(["ping"]) == Exit.OK
        assert re.fullmatch(rf"{path} answered in \d+\.\d\d ms\n", capsys.readouterr().out)
        assert main(["describe"]) == Exit.OK
        assert json.loads(capsys.readouterr().out) == INFO
        assert main(["metrics"]) == Exit.OK
        assert '\nasrd_state{state="ok"} 1\n' in capsys.readouterr().out
        assert main(["cancel", "unknown"]) == Exit.FAILED
        assert capsys.readouterr().err == "asrctl: you have no job unknown\n"


def test_cancel_ends_a_job(path: Path, recording: str, capsys: Capture) -> None:
    with FakeDaemon(path, [never]) as daemon:
        asrctl = started("transcribe", recording)
        (job,) = daemon.wait_for("transcribe")
        assert main(["cancel", job.data["job_id"]]) == Exit.OK
        assert capsys.readouterr().out == "cancelled 1 job\n"
        _, err = asrctl.communicate(None, PATIENCE)
        assert err == f"asrctl: {recording}: cancelled\n".encode()
        assert asrctl.returncode == Exit.CANCELLED


def test_watch_continues_while_the_daemon_is_away(path: Path) -> None:
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


@pytest.mark.parametrize("interval", ["0", "soon"])
def test_wrong_interval_is_refused(interval: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["watch", "--interval", interval])
    assert "must be 0.1 to 86400 seconds" in capsys.readouterr().err


def test_public_socket_answers_users_outside_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    # Tests may run as root, for whom no mode denies access.
    real, public = socket.socket.connect, tmp_path / "status.sock"

    def deny_the_main_one(self: socket.socket, address: str) -> None:
        if address != str(public):
            raise PermissionError(errno.EACCES, "Permission denied")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", deny_the_main_one)
    monkeypatch.setattr(asking, "STATUS_SOCKET", str(public))
    monkeypatch.delenv("ASRD_SOCKET", raising=False)
    with FakeDaemon(public):
        assert main(["health"]) == Exit.OK
        assert main(["ping"]) == Exit.OK
        assert str(public) in capsys.readouterr().out
        assert main(["cancel", "j"]) == Exit.UNREACHABLE
        assert main(["ping", "--socket", "/named"]) == Exit.UNREACHABLE
    assert main(["ping"]) == Exit.UNREACHABLE
    for line in capsys.readouterr().err.splitlines():
        assert line.endswith("are you in the group asr?")


def test_socket_option_is_accepted_before_and_after_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("ASRD_SOCKET", raising=False)
    named = tmp_path / "other.sock"
    with FakeDaemon(named) as daemon:
        assert main(["--socket", str(named), "ping"]) == Exit.OK
        assert main(["ping", "--socket", str(named)]) == Exit.OK
        assert len(daemon.requests) == 2
    assert main(["doctor", "--socket", str(named)]) == Exit.FAILED
    assert f"the socket {named} is missing" in capsys.readouterr().out


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"asrctl {__version__}\n"
