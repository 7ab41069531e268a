"""The front's connection to a worker; the tests with processes are in tests/process/."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
import trio.testing

from asrd.front import retry_files, worker_connection
from asrd.front.worker_connection import WorkerConnection
from asrd.wire import frames
from tests.support.raw import PATIENCE


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
                    await worker.send(frames.encode("cannot-load", {"text": "no model"}))
                await owner.failed.wait()
                CHANGES[change](tmp_path)
                async with await listener.accept():
                    connection.close()

    anyio.run(play)
