"""The front's connection to a worker; the tests with processes are in tests/process/."""

from pathlib import Path
from typing import Any, cast

import anyio
import pytest
import trio.testing

from asrd.front.worker_connection import WorkerConnection


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
