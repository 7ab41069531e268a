"""The front's connection to a worker; the tests with processes are in tests/process/."""

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import anyio
import pytest
import trio.testing

from asrd.front import retry_files, worker_connection
from asrd.front.worker_connection import WorkerConnection
from asrd.wire.frames import encode
from tests.support.raw import HELLO, PATIENCE


def test_worker_connection_outlives_a_bug_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Owner:
        called = 0

        def worker_failed(self, connection: WorkerConnection, *_: object) -> None:
            self.called += 1
            if self.called == 1:
                raise RuntimeError("a bug")
            connection.close()

    owner = Owner()

    async def keep() -> None:
        async with anyio.create_task_group() as tasks:
            path = tmp_path / "0.sock"
            await WorkerConnection("0", path, cast(Any, owner), tasks, memoryview(b"")).run()

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(keep, backend="trio", backend_options={"clock": clock})
    assert owner.called == 2
    assert "RuntimeError: a bug" in caplog.text


# A worker's side of one connection after the other: waits for the next one, and returns it.
Accept = Callable[[], Awaitable[trio.SocketStream]]


def played(
    path: Path,
    worker: Callable[[Accept, WorkerConnection], Awaitable[None]],
    owner: Mock | None = None,
) -> Mock:
    """Plays a worker in a clock that jumps; returns the front's side, as it was called."""
    owner = owner or Mock()

    async def play() -> None:
        with socket.socket(socket.AF_UNIX) as plain:
            plain.bind(str(path))
            plain.listen(8)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(plain))
            async with anyio.create_task_group() as tasks:
                buffer = memoryview(bytearray(65536))
                connection = WorkerConnection("0", path, owner, tasks, buffer)
                tasks.start_soon(connection.run)
                await worker(listener.accept, connection)
                tasks.cancel_scope.cancel()
            await listener.aclose()

    clock = trio.testing.MockClock(autojump_threshold=0.02)
    anyio.run(play, backend="trio", backend_options={"clock": clock})
    return owner


def failures(owner: Mock) -> list[tuple[bool, str]]:
    return [call.args[1:] for call in owner.worker_failed.call_args_list]


def test_worker_that_reports_nothing_is_down(tmp_path: Path) -> None:
    async def silent(accept: Accept, connection: WorkerConnection) -> None:
        async with await accept() as stream:
            await trio.sleep(59)
            assert connection.info.heard_at == 0.0
            await trio.sleep(2)
            await stream.send_all(encode("hello", HELLO))
            await trio.sleep(100)

    owner = played(tmp_path / "0.sock", silent)
    assert failures(owner) == [(True, "it has reported nothing for 60 s after its start")]
    owner.worker_ready.assert_called_once()


def test_worker_that_dies_whenever_it_loads_is_failed_with_the_cause(tmp_path: Path) -> None:
    async def dying(accept: Accept, connection: WorkerConnection) -> None:
        for number in range(1, 13):
            async with await accept() as stream:
                last = {"exit": "out of memory (killed by SIGKILL)", "pid": number}
                loading = {"pid": number + 1, "model": "large", "last": last}
                await stream.send_all(encode("loading", loading))
                await trio.sleep(1.0)
        async with await accept() as stream:
            await stream.send_all(encode("hello", HELLO))
            await trio.sleep(1.0)
            assert connection.info.loads

    owner = played(tmp_path / "0.sock", dying)
    why = "its process dies again and again while it loads its model: "
    # Once, however often it dies after that.
    assert failures(owner) == [(False, f"{why}out of memory (killed by SIGKILL)")]
    deaths = [call.args[1].summary(Mock()) for call in owner.worker_lost.call_args_list]
    assert [death.endswith(", while it loaded its model") for death in deaths] == [
        *[True] * 12,
        False,
    ]


def test_start_is_counted_from_when_the_worker_gives_its_jobs_back(tmp_path: Path) -> None:
    async def stopping(accept: Accept, connection: WorkerConnection) -> None:
        async with await accept() as stream:
            await stream.send_all(encode("hello", HELLO))
            await trio.sleep(54)
            failed = {"key": 1, "code": "shutting-down", "text": "the worker stops"}
            await stream.send_all(encode("failed", failed))
            await trio.sleep(1)
            assert anyio.current_time() - (connection.info.expected_at or 0.0) < 2

    played(tmp_path / "0.sock", stopping).job_failed.assert_called_once()


def test_closed_connection_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front has forgotten its worker. What arrived before that is still read, and a try that
    was due still fails."""

    async def left(accept: Accept, connection: WorkerConnection) -> None:
        async with await accept() as stream:
            await stream.send_all(encode("hello", HELLO) + encode("alive", {}))
            await trio.sleep(1)

    owner = Mock()
    owner.worker_ready.side_effect = lambda connection, _: connection.close()
    played(tmp_path / "0.sock", left, owner)
    assert [name for name, *_ in owner.method_calls] == ["worker_ready"]

    async def gone() -> None:
        async with anyio.create_task_group() as tasks:
            connection = WorkerConnection("0", tmp_path / "1.sock", owner, tasks, memoryview(b""))
            connection.close()
            await connection.run()

    monkeypatch.setattr(worker_connection, "_REFUSALS", 1)
    owner = Mock()
    anyio.run(gone)
    assert not owner.method_calls


CHANGES: dict[str, Callable[[Path], object]] = {
    "the common settings": lambda tmp: (tmp / "asrd.toml").write_text("# corrected\n"),
    "its own settings": lambda tmp: (tmp / "worker-0.toml").write_text("# corrected\n"),
    "the mode of its settings": lambda tmp: (tmp / "asrd.toml").chmod(0o640),
    "the directory of its socket": lambda tmp: os.utime(tmp / "worker"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_failed_worker_is_tried_again_when_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("ASRD_CONFIG", str(tmp_path / "asrd.toml"))
    monkeypatch.setattr(worker_connection, "_FAILED_FIRST", 1e9)
    monkeypatch.setattr(worker_connection, "_FAILED_LAST", 1e9)
    monkeypatch.setattr(retry_files, "_LOOK_SECONDS", 0.0)
    (tmp_path / "asrd.toml").write_text("")
    (tmp_path / "worker").mkdir()
    path = tmp_path / "worker" / "0.sock"

    class Owner:
        failed = anyio.Event()

        def worker_failed(self, *_: object) -> None:
            self.failed.set()

    async def play() -> None:
        owner = Owner()
        async with (
            anyio.create_task_group() as tasks,
            await anyio.create_unix_listener(path) as listener,
        ):
            buffer = memoryview(bytearray(4096))
            connection = WorkerConnection("0", path, cast(Any, owner), tasks, buffer)
            tasks.start_soon(connection.run)
            with anyio.fail_after(PATIENCE):
                async with await listener.accept() as worker:
                    await worker.send(encode("cannot-load", {"text": "no model"}))
                await owner.failed.wait()
                CHANGES[change](tmp_path)
                async with await listener.accept():
                    connection.close()

    anyio.run(play)
