"""Where the socket is, and what is said when nobody answers there."""

import os
import socket
from pathlib import Path

import pytest

from asrd import Client
from asrd.client import connect
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


def test_the_socket_is_the_argument_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASRD_SOCKET", "/from/env")
    assert Client("/named").socket == "/named"
    assert Client().socket == "/from/env"


# --- without argument and variable --------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system's socket would be; neither it nor its directory is there."""
    path = tmp_path / "system" / "asrd.sock"
    monkeypatch.delenv("ASRD_SOCKET", raising=False)
    monkeypatch.setattr(connect, "DEFAULT_SOCKET", str(path))
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's own socket is to be; its directory is there."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    (runtime / "asrd").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return runtime / "asrd" / "asrd.sock"


def listen(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_the_system_s_socket_comes_first_and_then_the_user_s_own(system: Path, own: Path) -> None:
    assert Client().socket == str(own)
    listen(own)
    assert Client().socket == str(own)
    listen(system)
    assert Client().socket == str(system)
    own.unlink()
    assert Client().socket == str(system)


def test_where_the_system_s_daemon_is_installed_its_socket_is_the_one_that_is_missing(
    system: Path, own: Path
) -> None:
    system.parent.mkdir()
    assert Client().socket == str(system)
    listen(own)
    assert Client().socket == str(own)


def test_a_system_socket_that_this_user_may_not_use_is_left_for_the_own(
    system: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen(system)
    # Tests may run as root, whom no mode keeps out.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert Client().socket == str(system)
    listen(own)
    assert Client().socket == str(own)


def test_a_directory_that_another_user_can_write_to_is_not_trusted(system: Path, own: Path) -> None:
    listen(own)
    for mode in (0o777, 0o770, 0o1777):
        own.parent.chmod(mode)
        assert Client().socket == str(system)
    own.parent.chmod(0o700)
    assert Client().socket == str(own)
    own.parent.parent.chmod(0o777)
    assert Client().socket == str(system)


def test_a_place_where_another_user_may_put_a_socket_is_not_waited_for(
    system: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.parent.rmdir()
    assert Client().socket == str(own)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(connect, "own_directories", lambda: [Path("/tmp/asrd-12345")])
    assert Client().socket == str(system)


def test_a_link_or_a_directory_of_another_user_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert connect.is_private(tmp_path)
    assert not connect.is_private(tmp_path / "link")
    assert not connect.is_private(tmp_path / "missing")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not connect.is_private(tmp_path)


def test_without_a_runtime_directory_it_is_a_private_one(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    for value in ("", "relative", "/no/such/directory", "/tmp"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert connect.own_directories() == [Path("/tmp/asrd-12345")]


def test_a_place_in_tmp_that_another_user_took_over_gets_no_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "asrd-1000"
    place.mkdir(mode=0o700)
    monkeypatch.setattr(connect, "_without_runtime", lambda: place)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "asrd.sock"))
        listener.listen()
        connect_once(place)
        # As if it had been removed, and made by somebody else: others may write to it now.
        place.chmod(0o777)
        with pytest.raises(ConnectionLost, match="is in a directory of another user"):
            Client(str(place / "asrd.sock")).transcribe(b"secret")


def connect_once(place: Path) -> None:
    found = connect.connect(str(place / "asrd.sock"))
    assert found is not None
    found.close()
