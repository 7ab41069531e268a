"""The search for the socket, and the errors of a connection."""

import os
import socket
from pathlib import Path

import pytest

from asrd import Client
from asrd.client import connect
from asrd.errors import ConnectionLost


def test_error_names_socket_and_problem(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    with pytest.raises(ConnectionLost, match=f"nobody listens on {path}"):
        Client(str(path)).ping()
    with pytest.raises(ConnectionLost, match=r"cannot connect to .*: AF_UNIX path too long"):
        Client("/" + "x" * 200).ping()


def test_permission_error_names_the_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, whom file modes do not restrict.
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ConnectionLost, match=r"denied for .*: are you in the group asr\?") as error:
        Client(str(path)).ping()
    assert isinstance(error.value.__cause__, PermissionError)


def test_socket_is_the_argument_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASRD_SOCKET", "/from/env")
    assert Client("/named").socket == "/named"
    assert Client().socket == "/from/env"


# --- without argument and variable --------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the system's socket; neither it nor its directory exists."""
    path = tmp_path / "system" / "asrd.sock"
    monkeypatch.delenv("ASRD_SOCKET", raising=False)
    monkeypatch.setattr(connect, "DEFAULT_SOCKET", str(path))
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of this user's own socket; only its directory exists."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    (runtime / "asrd").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime / "asrd" / "asrd.sock"


def listen(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_system_socket_comes_before_the_users_own(system: Path, own: Path) -> None:
    assert Client().socket == str(own)
    listen(own)
    assert Client().socket == str(own)
    listen(system)
    assert Client().socket == str(system)
    own.unlink()
    assert Client().socket == str(system)


def test_missing_socket_of_an_installed_daemon_is_the_default(system: Path, own: Path) -> None:
    system.parent.mkdir()
    assert Client().socket == str(system)
    listen(own)
    assert Client().socket == str(own)


def test_system_socket_without_permission_is_skipped(
    system: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen(system)
    # Tests may run as root, whom file modes do not restrict.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert Client().socket == str(system)
    listen(own)
    assert Client().socket == str(own)


def test_directory_that_others_can_write_is_not_trusted(system: Path, own: Path) -> None:
    listen(own)
    for mode in (0o777, 0o770, 0o1777):
        own.parent.chmod(mode)
        assert Client().socket == str(system)
    own.parent.chmod(0o700)
    assert Client().socket == str(own)
    own.parent.parent.chmod(0o777)
    assert Client().socket == str(system)


def test_directory_that_others_can_make_is_not_the_default(
    system: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.parent.rmdir()
    assert Client().socket == str(own)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(connect, "own_directories", lambda: [Path("/tmp/asrd-12345")])
    assert Client().socket == str(system)


def test_link_or_directory_of_another_user_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert connect.is_private(tmp_path)
    assert not connect.is_private(tmp_path / "link")
    assert not connect.is_private(tmp_path / "missing")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not connect.is_private(tmp_path)


def test_without_runtime_directory_tmp_is_used(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    for value in ("", "relative", "/no/such/directory", "/tmp"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert connect.own_directories() == [Path("/tmp/asrd-12345")]


def test_tmp_directory_of_another_user_gets_no_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "asrd-1000"
    place.mkdir(mode=0o700)
    monkeypatch.setattr(connect, "_without_runtime", lambda: place)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "asrd.sock"))
        listener.listen()
        Client(str(place / "asrd.sock"))._acquire(None).close()
        # As if it had been removed, and another user had made it.
        place.chmod(0o777)
        with pytest.raises(ConnectionLost, match="is in a directory of another user"):
            Client(str(place / "asrd.sock")).transcribe(b"secret")
