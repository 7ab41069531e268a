"""A worker that hangs before it is ready, when its watchdog does not count yet."""

import os
import signal
from pathlib import Path

import pytest

from tests.process.daemons import Daemon, alive
from tests.process.raw import wait_for
from tests.process.test_run import ask, transcript

# Python runs it before any program: a worker finds its engine's library only after a while.
_SLOWLY = """
import sys, time

class Slowly:
    def find_spec(name, path, target=None):
        if name == "ctranslate2":
            time.sleep(1.5)

if "asrd.worker.main" in sys.orig_argv:
    sys.meta_path.insert(0, Slowly)
"""


@pytest.fixture
def loads_slowly(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path_factory.mktemp("site")
    (directory / "sitecustomize.py").write_text(_SLOWLY)
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=os.pathsep)


@pytest.mark.usefixtures("loads_slowly")
def test_a_worker_that_stops_while_it_loads_is_replaced(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--start-timeout", "4", config="[worker]\ncpu_threads = 1\n") as daemon:
        wait_for("a worker that loads", lambda: daemon.workers()["0"]["pid"])
        stopped = daemon.pid_of()
        daemon.kill(number=signal.SIGSTOP)
        assert daemon.workers()["0"]["state"] == "loading"
        wait_for("its end", lambda: not alive(stopped))
        assert "not ready after 4 s" in daemon.log
        with daemon.connect() as client:
            ask(client, "a")
            transcript(client, "a")
