"""A listening socket in the file system."""

import errno
import fcntl
import os
import socket
import threading
from pathlib import Path

import pytest

from asrd.errors import ConfigError
from asrd.listener import Place, bind, bind_tcp, shown, unbind, watch_peer


def test_only_one_of_many_binds_at_once_succeeds(tmp_path: Path) -> None:
    """Each found nobody listening, and removed the socket of the one before."""
    path = str(tmp_path / "s")
    start = threading.Barrier(8)
    listening: list[socket.socket] = []
    refused: list[str] = []

    def try_to_bind() -> None:
        start.wait()
        try:
            listening.append(bind(path))
        except ConfigError as error:
            refused.append(str(error))

    for _ in range(10):
        # A dead daemon's, which all want to remove.
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        threads = [threading.Thread(target=try_to_bind) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (sock,) = listening
        assert set(refused) == {f"cannot listen at {path}: another daemon listens there"}
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        sock.close()
        unbind(path)
        assert list(tmp_path.iterdir()) == []
        listening.clear()


def test_daemon_that_ends_leaves_the_socket_of_the_next_one(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    bind(path).close()
    with bind(path):
        unbind(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    unbind(path)
    unbind(path)
    assert not Path(path).exists()


def test_lock_that_another_program_keeps_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"another program holds .*s\.lock"):
            bind(str(path), patience=0.05)


def test_lock_is_not_followed_to_another_file(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / "s.lock").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot listen at"):
        bind(str(tmp_path / "s"))
    assert precious.read_text() == "x"


# --- a socket that was removed --------------------------------------------------------------------


def place_of(sock: socket.socket) -> Place:
    place = Place.of(sock)
    assert place is not None
    return place


def test_removed_socket_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "asrd.sock"
    with bind(str(path)) as sock:
        place = place_of(sock)
        assert not place.is_lost()
        path.unlink()
        assert place.is_lost()


def test_socket_of_a_dead_process_in_its_place_is_a_loss(tmp_path: Path) -> None:
    # systemd passes its own socket to each front, also after one had to bind again.
    path = tmp_path / "asrd.sock"
    with bind(str(path)) as passed:
        path.unlink()
        bind(str(path)).close()
        place = place_of(passed)
        assert place.is_lost()
        with place.bind_again(0o600):
            assert not place.is_lost()


@pytest.mark.parametrize("kind", ["writable", "link"])
def test_directory_that_another_user_made_is_not_used(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "place"
    directory.mkdir(mode=0o700)
    path = directory / "asrd.sock"
    with bind(str(path)) as sock:
        place = place_of(sock)
        path.unlink()
        directory.rmdir()
        if kind == "link":
            (tmp_path / "other").mkdir(mode=0o700)
            directory.symlink_to(tmp_path / "other")
        else:
            directory.mkdir()
            directory.chmod(0o777)
        with pytest.raises(ConfigError, match="is no longer ours alone"):
            place.bind_again(0o600)
        assert not list(directory.iterdir())


# --- TCP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "start"),
    [
        ("127.0.0.1:0", "127.0.0.1:"),
        ("[::1]:0", "[::1]:"),
        (":0", "[::]:" if socket.has_dualstack_ipv6() else "0.0.0.0:"),
    ],
)
def test_address_of_tcp(address: str, start: str) -> None:
    with bind_tcp(address) as listener:
        assert shown(listener).startswith(start)
        _, _, port = shown(listener).rpartition(":")
        host = "::1" if address.startswith("[") else "127.0.0.1"
        with socket.create_connection((host, int(port))):
            pass
        with pytest.raises(ConfigError, match="Address already in use"):
            bind_tcp(start + port)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("10300", "give HOST:PORT"),
        ("::1:10300", "give HOST:PORT"),
        ("127.0.0.1:70000", "give HOST:PORT"),
        ("127.0.0.1:", "give HOST:PORT"),
        ("x" * 70 + ":1", "cannot listen at x"),
        ("192.0.2.77:1", "Cannot assign"),
    ],
)
def test_wrong_address_of_tcp(address: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        bind_tcp(address)


def test_sandbox_of_the_unit_allows_no_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The front has only the sockets that systemd passes."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ConfigError, match=r"systemctl enable asrd-wyoming\.socket"):
        bind_tcp("127.0.0.1:0")


def test_kernel_asks_whether_the_peer_is_there() -> None:
    with socket.socket(socket.AF_INET) as sock:
        watch_peer(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        limit = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert idle + interval * count == limit / 1000 == 120
    with socket.socket(socket.AF_UNIX) as sock:
        watch_peer(sock)
