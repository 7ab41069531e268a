"""A client that forks, and the real front: the parent's disconnect cancels its job."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Front
from tests.support.raw import HELLO, PATIENCE, done

PROGRAMS = [
    ["close_while_a_child_lives", "close"],
    ["close_while_a_copy_lives"],
    ["leave_while_a_copy_lives", "asyncio"],
]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Front(tmp_path, "0") as daemon:
        yield daemon


@pytest.mark.parametrize("program", PROGRAMS)
def test_parent_that_closes_after_a_fork_cancels_its_job(front: Front, program: list[str]) -> None:
    with front.accept() as worker:
        worker.send("hello", HELLO)
        front.wait_for_state("ready")
        client = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking", *program],
            env={**os.environ, "ASRD_SOCKET": front.socket},
            stdin=subprocess.PIPE,
        )
        with client:
            job = worker.start_job()
            segment = {"id": 1, "start": 0.0, "end": 1.0, "text": " a"}
            worker.send("segment", {"key": job["key"], "index": 0, "segment": segment})
            # The child lives until the client's stdin is closed.
            assert worker.expect("cancel")["key"] == job["key"]
            worker.send("done", done(job["key"]))
            client.communicate(timeout=PATIENCE)
        assert client.returncode == 0
