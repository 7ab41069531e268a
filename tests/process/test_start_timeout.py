"""A worker that hangs while it loads, before its watchdog is armed."""

import signal
from pathlib import Path

from tests.support.daemons import Daemon, alive
from tests.support.raw import wait_for


class Slow(Daemon):
    program = ("-m", "tests.support.changed", "tests.support.slow")


def test_worker_that_stops_while_loading_is_replaced(tmp_path: Path) -> None:
    with Slow(tmp_path, "--start-timeout", "4", config="[worker]\ncpu_threads = 1\n") as daemon:
        wait_for("a worker that loads", lambda: daemon.workers()["0"]["pid"])
        stopped = daemon.pid_of()
        daemon.kill(number=signal.SIGSTOP)
        assert daemon.workers()["0"]["state"] == "loading"
        wait_for("its end", lambda: not alive(stopped))
        assert "not ready after 4 s" in daemon.log
        with daemon.connect() as client:
            client.ask_file("a")
            client.transcript("a")
