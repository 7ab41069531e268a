"""Where the socket is, and what is said when nobody answers there."""

import socket
from pathlib import Path

import pytest

from asrd import Client
from asrd.errors import ConnectionLost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "asrd.sock"


def test_which_socket_and_what_is_wrong_with_it(path: Path) -> None:
    with pytest.raises(ConnectionLost, match=f"the socket {path} is missing"):
        Client(str(path)).ping()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    with pytest.raises(ConnectionLost, match=f"nobody listens on {path}"):
        Client(str(path)).ping()
    with pytest.raises(ConnectionLost, match=r"cannot connect to .*: AF_UNIX path too long"):
        Client("/" + "x" * 200).ping()


def test_permission_denied_points_to_the_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, whom no mode keeps out.
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ConnectionLost, match=r"denied for .*: are you in the group asr\?") as error:
        Client(str(path)).ping()
    assert isinstance(error.value.__cause__, PermissionError)


def test_the_socket_is_the_argument_or_the_variable_or_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASRD_SOCKET", "/from/env")
    assert Client("/named").socket == "/named"
    assert Client().socket == "/from/env"
    monkeypatch.delenv("ASRD_SOCKET")
    assert Client().socket == "/run/asrd/asrd.sock"
