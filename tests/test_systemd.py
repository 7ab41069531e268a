"""What systemd hands over, and what it is told, by real sockets."""

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd import systemd

# Above all that pytest has open.
START = 300


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(systemd, "LISTEN_FDS_START", START)


def passed(
    monkeypatch: pytest.MonkeyPatch, count: str, names: str | None, pid: int | None = None
) -> dict[str, list[socket.socket]]:
    """What listen_sockets finds in such an environment, which must be gone afterwards."""
    monkeypatch.setenv("LISTEN_PID", str(pid or os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    if names is None:
        monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    else:
        monkeypatch.setenv("LISTEN_FDNAMES", names)
    found = systemd.listen_sockets()
    assert not [variable for variable in os.environ if variable.startswith("LISTEN_")]
    return found


@pytest.fixture
def listeners(tmp_path: Path) -> list[str]:
    """Two sockets where systemd would put them; the test's sd.listen_sockets takes them over."""
    paths = []
    for index in range(2):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / f"{index}"))
            listener.listen()
            number = fcntl.fcntl(listener, fcntl.F_DUPFD, START + index)
            assert number == START + index
            paths.append(listener.getsockname())
    return paths


def names_of(found: dict[str, list[socket.socket]]) -> dict[str, list[str]]:
    names = {name: [sock.getsockname() for sock in socks] for name, socks in found.items()}
    for socks in found.values():
        for sock in socks:
            assert not sock.get_inheritable()
            sock.close()
    return names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("asrd:status", {"asrd": [0], "status": [1]}),
        ("asrd:asrd", {"asrd": [0, 1]}),
        ("asrd", {"asrd": [0], "unknown": [1]}),
        (":status", {"unknown": [0], "status": [1]}),
        ("asrd:status:more", {"asrd": [0], "status": [1]}),
        ("", {"unknown": [0, 1]}),
        (None, {"unknown": [0, 1]}),
    ],
)
def test_sockets_are_found_by_name(
    names: str | None,
    expected: dict[str, list[int]],
    listeners: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = names_of(passed(monkeypatch, "2", names))
    assert found == {name: [listeners[i] for i in which] for name, which in expected.items()}


def test_a_passed_socket_accepts(listeners: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ((first,), (second,)) = passed(monkeypatch, "2", "a:b").values()
    with first, second, socket.socket(socket.AF_UNIX) as client:
        client.connect(listeners[0])
        first.accept()[0].close()


def test_what_was_meant_for_another_process_is_left_alone(
    listeners: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert passed(monkeypatch, "2", "asrd:status", pid=os.getppid()) == {}
    for number in (START, START + 1):
        os.close(number)


@pytest.mark.parametrize("count", ["0", "", "-1", "two", "1.5", " "])
def test_an_odd_count_is_none(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert passed(monkeypatch, count, "asrd") == {}


def test_without_the_variables_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(variable, raising=False)
    assert systemd.listen_sockets() == {}


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", listening.getsockname())
        yield listening


def told(manager: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(manager.recv(65536).decode())
        except BlockingIOError:
            return found


def test_the_manager_is_told(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    notifier.ready()
    notifier.watchdog()
    notifier.stopping()
    assert told(manager) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    notifier.close()


def test_a_status_is_utf_8_and_told_only_if_it_changed(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    for text in ("2/2 workers ready · 1 done", "2/2 workers ready · 1 done", "語"):
        notifier.status(text)
    assert told(manager) == ["STATUS=2/2 workers ready · 1 done", "STATUS=語"]
    notifier.close()


def test_a_status_can_not_smuggle_in_another_notification(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    notifier.status("worker 0: no\nMAINPID=1\nREADY=1" + "\N{SNOWMAN}" * 5000)
    (status,) = told(manager)
    notifier.close()
    assert status.startswith(r"STATUS=worker 0: no\nMAINPID=1\nREADY=1☃")
    assert len(status.encode()) < 4096


def test_a_manager_that_does_not_read_delays_nobody(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    notifier.ready()
    # More than any queue of datagrams holds.
    for number in range(5000):
        notifier.status(f"number {number}")
    notifier.close()
    assert told(manager)[:2] == ["READY=1", "STATUS=number 0"]


def test_an_abstract_socket_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"asrd-test-{os.getpid()}"
        listening.bind(f"\0{name}")
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notifier = systemd.Notifier()
        notifier.ready()
        notifier.close()
        assert told(listening) == ["READY=1"]


@pytest.mark.parametrize("variable", [None, ""])
def test_without_a_manager_nothing_is_told_and_nothing_left(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", variable)
    notifier = systemd.Notifier()
    notifier.ready()
    notifier.status("x")
    notifier.close()


def test_a_manager_that_is_gone_is_no_error(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    manager.close()
    notifier.ready()
    notifier.close()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        (None, None, None),
        ("", None, None),
        ("soon", None, None),
        ("-1", None, None),
        ("10000000", None, 5.0),
        ("3000000", "", 1.5),
        pytest.param("3000000", str(os.getpid()), 1.5, id="its own pid"),
        ("3000000", "1", None),
    ],
)
def test_how_often_to_ping(
    usec: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert systemd.watchdog_seconds() == seconds


def test_a_stored_descriptor_comes_back_beside_the_sockets(
    monkeypatch: pytest.MonkeyPatch, listeners: list[str]
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_FDNAMES", "worker:stderr")
    found = systemd.listen_fds()
    assert found == {"worker": [START], "stderr": [START + 1]}
    for fds in found.values():
        for fd in fds:
            assert not os.get_inheritable(fd)
            os.close(fd)


def test_a_descriptor_is_stored_under_its_name(manager: socket.socket, tmp_path: Path) -> None:
    notifier = systemd.Notifier()
    assert notifier.managed
    with open(tmp_path / "kept", "w+") as file:
        notifier.store("stderr", file.fileno())
        text, fds, _, _ = socket.recv_fds(manager, 4096, 1)
        assert text == b"FDSTORE=1\nFDNAME=stderr"
        assert os.path.samestat(os.fstat(fds[0]), os.fstat(file.fileno()))
        os.close(fds[0])
    notifier.close()


def test_where_nobody_manages_nothing_is_stored() -> None:
    notifier = systemd.Notifier()
    assert not notifier.managed
    notifier.store("stderr", 0)
