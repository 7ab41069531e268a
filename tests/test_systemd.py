"""Descriptors from the service manager and notifications to it, by real sockets."""

import contextlib
import fcntl
import os
import resource
import socket
import threading
from pathlib import Path

import pytest

from asrd import systemd
from tests.support.notifications import notifications

# Above the descriptors that pytest has open.
START = 300


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(systemd, "LISTEN_FDS_START", START)


def passed(
    monkeypatch: pytest.MonkeyPatch, count: str, names: str | None, pid: int | None = None
) -> dict[str, list[socket.socket]]:
    """The result of listen_sockets; the variables must be gone afterwards."""
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
    """Two sockets where systemd would put them; the code that takes them closes them."""
    paths = []
    for index in range(2):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / f"{index}"))
            listener.listen()
            number = fcntl.fcntl(listener, fcntl.F_DUPFD, START + index)
            assert number == START + index
            paths.append(listener.getsockname())
    return paths


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("asrd:status", {"asrd": [0], "status": [1]}),
        ("asrd:asrd", {"asrd": [0, 1]}),
        ("asrd", {"asrd": [0], "unknown": [1]}),
        (":status", {"unknown": [0], "status": [1]}),
        ("asrd:status:more", {"asrd": [0], "status": [1]}),
        (None, {"unknown": [0, 1]}),
    ],
)
def test_passed_sockets_are_found_by_name(
    names: str | None,
    expected: dict[str, list[int]],
    listeners: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = passed(monkeypatch, "2", names)
    paths = {name: [sock.getsockname() for sock in socks] for name, socks in found.items()}
    assert paths == {name: [listeners[i] for i in which] for name, which in expected.items()}
    for socks in found.values():
        for sock in socks:
            assert not sock.get_inheritable()
            sock.close()


def test_sockets_for_another_process_are_left_alone(
    listeners: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert passed(monkeypatch, "2", "asrd:status", pid=os.getppid()) == {}
    for number in (START, START + 1):
        os.close(number)


@pytest.mark.parametrize("count", ["0", "", "-1", "two", " "])
def test_odd_number_of_descriptors_counts_as_none(
    count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert passed(monkeypatch, count, "asrd") == {}
    # All variables are gone now.
    assert systemd.listen_fds() == {}


def test_notifications_reach_the_manager(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    notifier.ready()
    notifier.watchdog()
    notifier.stopping()
    assert notifications(manager) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    notifier.close()


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        (["2/2 ready · 1 done", "2/2 ready · 1 done", "語"], ["2/2 ready · 1 done", "語"]),
        # A second line would be another notification.
        (["worker 0: no\nMAINPID=1\nREADY=1"], [r"worker 0: no\nMAINPID=1\nREADY=1"]),
    ],
)
def test_status_is_one_line_of_utf_8_sent_once(
    texts: list[str], lines: list[str], manager: socket.socket
) -> None:
    notifier = systemd.Notifier()
    for text in texts:
        notifier.status(text)
    assert notifications(manager) == [f"STATUS={line}" for line in lines]
    notifier.close()


def test_status_never_waits_for_the_manager(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    notifier.ready()
    # More than any queue of datagrams holds.
    for number in range(5000):
        notifier.status(f"number {number}")
    notifier.close()
    assert notifications(manager)[:2] == ["READY=1", "STATUS=number 0"]


def test_abstract_notify_socket_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"asrd-test-{os.getpid()}"
        listening.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notifier = systemd.Notifier()
        notifier.ready()
        notifier.close()
        assert notifications(listening) == ["READY=1"]


@pytest.mark.parametrize("variable", [None, ""])
def test_notifier_without_manager_does_nothing(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", variable)
    notifier = systemd.Notifier()
    assert not notifier.managed
    notifier.ready()
    notifier.store("stderr", 0)
    notifier.close()


def test_manager_that_is_gone_is_no_error(manager: socket.socket) -> None:
    notifier = systemd.Notifier()
    manager.close()
    notifier.ready()
    notifier.close()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        (None, None, None),
        ("soon", None, None),
        ("-1", None, None),
        ("10000000", None, 5.0),
        ("3000000", "", 1.5),
        pytest.param("3000000", str(os.getpid()), 1.5, id="its own pid"),
        ("3000000", "1", None),
    ],
)
def test_watchdog_is_pinged_twice_in_its_time(
    usec: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert systemd.watchdog_seconds() == seconds


def test_descriptor_is_stored_under_its_name(manager: socket.socket, tmp_path: Path) -> None:
    notifier = systemd.Notifier()
    assert notifier.managed
    with open(tmp_path / "kept", "w+") as file:
        notifier.store("stderr", file.fileno())
        text, fds, _, _ = socket.recv_fds(manager, 4096, 1)
        assert text == b"FDSTORE=1\nFDNAME=stderr"
        assert os.path.samestat(os.fstat(fds[0]), os.fstat(file.fileno()))
        os.close(fds[0])
    notifier.close()


@pytest.mark.parametrize("keeps", [True, False])
def test_store_keeps_what_is_sent_into_it_or_is_none(manager: socket.socket, keeps: bool) -> None:
    kept: list[int] = []

    def manage() -> None:
        for _ in range(2):
            message, fds, _, _ = socket.recv_fds(manager, 4096, 1)
            if keeps and message == b"FDSTORE=1\nFDNAME=name\nFDPOLL=0":
                kept.extend(fds)
            else:
                os.close(fds[0])

    thread = threading.Thread(target=manage)
    thread.start()
    notifier = systemd.Notifier()
    ours = notifier.store_socket("name")
    thread.join()
    notifier.unstore("name")
    assert notifications(manager) == ["FDSTOREREMOVE=1\nFDNAME=name"]
    notifier.close()
    assert (ours is not None) == keeps
    if ours is not None:
        with ours, socket.socket(fileno=kept[0]) as stored:
            ours.send(b"state")
            ours.close()
            assert stored.recv(10) == b"state"


def test_manager_that_handles_nothing_is_no_store(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_BARRIER_SECONDS", 0.0)
    notifier = systemd.Notifier()
    assert notifier.store_socket("name") is None
    notifier.close()
    # Its descriptors are in the manager's socket.
    for _ in range(2):
        _, (fd,), _, _ = socket.recv_fds(manager, 4096, 1)
        os.close(fd)


@pytest.mark.parametrize("free", [0, 1, 2, 3])
def test_without_descriptors_nothing_is_stored(manager: socket.socket, free: int) -> None:
    notifier = systemd.Notifier()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/dev/null", "rb") as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 1 + free, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(free):
            os.close(taken.pop())
        assert notifier.store_socket("name") is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
        notifier.close()
