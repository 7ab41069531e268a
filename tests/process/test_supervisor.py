"""The supervisor with programs that do what asrd's own never should."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from asrd.standalone.supervisor import Supervisor, Unit, expect_children

pytestmark = pytest.mark.anyio

_PATIENCE = 30.0
# Reports its status, and stays.
_TALKS = """
import os, socket, time
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
manager.send(b"STATUS=hello")
time.sleep(600)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        yield listener


@asynccontextmanager
async def supervised(unit: Unit, directory: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor([unit], directory)
    async with anyio.create_task_group() as tasks:
        supervisor.start(tasks)
        with anyio.fail_after(_PATIENCE):
            yield supervisor
        await supervisor.stop(0)
        tasks.cancel_scope.cancel()


async def until_status(unit: Unit, status: str) -> None:
    while unit.status != status:
        await anyio.sleep(0.01)


async def test_notifications_of_a_dead_process_are_ignored(
    tmp_path: Path, listener: socket.socket
) -> None:
    unit = Unit("talks", [sys.executable, "-c", _TALKS], {"x": listener}, on_demand=True)
    async with supervised(unit, tmp_path):
        await anyio.wait_all_tasks_blocked()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.sendto(b"READY=1", str(tmp_path / "talks"))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "sock"))
            await until_status(unit, "hello")
        assert not unit.ready.is_set()


async def test_program_that_cannot_start_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pidfd_open, children = os.pidfd_open, list[int]()

    def once_in_vain(pid: int) -> int:
        children.append(pid)
        if len(children) == 1:
            raise OSError(24, "Too many open files")
        return pidfd_open(pid)

    monkeypatch.setattr(os, "pidfd_open", once_in_vain)
    unit = Unit("talks", [sys.executable, "-c", _TALKS], {})
    async with supervised(unit, tmp_path):
        await until_status(unit, "hello")
        assert unit.pid == children[1]
        assert unit.starts == 1
    assert "cannot be started: Too many open files" in caplog.text


async def test_exit_code_is_known_if_sigchld_was_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        expect_children()
        unit = Unit("fails", [sys.executable, "-c", "raise SystemExit(3)"], {})
        async with supervised(unit, tmp_path):
            while unit.last_exit is None:
                await anyio.sleep(0.01)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert unit.last_exit == "exited with 3"


def test_child_ends_if_its_supervisor_died_first() -> None:
    code = "from asrd import systemd; systemd.die_with_supervisor(); print('alive')"
    for supervisor, outcome in ((os.getpid(), 0), (os.getppid(), -signal.SIGKILL)):
        environment = {**os.environ, "ASRD_SUPERVISED": str(supervisor)}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, timeout=_PATIENCE, check=False
        )
        assert result.returncode == outcome


async def test_lost_notify_socket_ends_the_supervisor(tmp_path: Path) -> None:
    # A path that is too long, a directory that is gone: `stop` must not wait for that unit.
    unit = Unit("mute", [sys.executable, "-c", ""], {})
    async with supervised(unit, tmp_path / ("x" * 100)) as supervisor:
        await supervisor.hopeless.wait()
    assert "mute: no socket for its notifications: " in str(supervisor.hopeless_because)


async def test_program_that_never_gets_ready_ends_the_supervisor(tmp_path: Path) -> None:
    unit = Unit("front", [sys.executable, "-c", "exit(3)"], {}, tries=2)
    async with supervised(unit, tmp_path) as supervisor:
        await supervisor.hopeless.wait()
        assert str(supervisor.hopeless_because) == (
            "front never got ready, in 2 tries (exited with 3)"
        )


async def test_front_that_was_ready_once_is_always_restarted(tmp_path: Path) -> None:
    code = _TALKS.replace("STATUS=hello", "READY=1").replace("time.sleep(600)", "exit(3)")
    unit = Unit("front", [sys.executable, "-c", code], {}, tries=2)
    async with supervised(unit, tmp_path) as supervisor:
        while unit.starts < 4:
            await anyio.sleep(0.01)
        assert not supervisor.hopeless.is_set()


# Stores two descriptors, of which one may be kept; the next process says what it was given.
_STORES = """
import array, os, socket, time
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
names = os.environ["LISTEN_FDNAMES"]
if "kept" in names:
    text = os.pread(3, 100, 0).decode()
    manager.send(f"STATUS={names} {os.environ['LISTEN_FDS']} {text}".encode())
    time.sleep(600)
for text in (b"mine", b"another's"):
    fd = os.memfd_create("kept")
    os.write(fd, text)
    socket.send_fds(manager, [b"FDSTORE=1\\nFDNAME=kept"], [fd])
manager.send(b"READY=1\\nSTATUS=stored")
time.sleep(600)
"""


# Offers another descriptor in the place of its listening socket: a file, or a socket elsewhere.
_OFFERS = """
import os, socket, time
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
other = socket.socket(socket.AF_UNIX)
other.bind("{path}")
other.listen()
for fd in (os.memfd_create("x"), other.fileno()):
    socket.send_fds(manager, [b"FDSTORE=1\\nFDNAME=x"], [fd])
manager.send(b"STATUS=offered")
time.sleep(600)
"""


async def test_child_cannot_replace_its_notify_socket(
    tmp_path: Path, listener: socket.socket
) -> None:
    code = _OFFERS.format(path=tmp_path / "other")
    unit = Unit("offers", [sys.executable, "-c", code], {"x": listener})
    async with supervised(unit, tmp_path):
        await until_status(unit, "offered")
        assert unit.sockets == {"x": listener}
        assert listener.fileno() >= 0


async def test_kill_while_the_kernel_counts_one_more_may_be_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([7, 8])
    monkeypatch.setattr("asrd.standalone.supervisor.oom_kills", lambda: next(counts, 8))
    unit = Unit("talks", [sys.executable, "-c", _TALKS], {})
    async with supervised(unit, tmp_path):
        for how in ("killed by SIGKILL, perhaps out of memory", "killed by SIGKILL"):
            await until_status(unit, "hello")
            unit.status = ""
            unit.signal(signal.SIGKILL)
            with anyio.fail_after(_PATIENCE):
                while unit.last_exit != how:
                    await anyio.sleep(0.01)


async def test_stored_descriptor_is_passed_to_the_next_process(tmp_path: Path) -> None:
    unit = Unit("stores", [sys.executable, "-c", _STORES], {})
    async with supervised(unit, tmp_path):
        await until_status(unit, "stored")
        unit.signal(signal.SIGKILL)
        await until_status(unit, "kept 1 mine")
        assert unit.last_exit == "killed by SIGKILL"
