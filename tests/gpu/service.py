"""`asrd run` on the device under test, with the patience that a driver's compiler needs."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asrd import Client
from tests.support.daemons import Daemon

CONFIG = "[front]\nqueue_max = 64\nmax_wait_seconds = 120\n[worker]\n"


class Service(Daemon):
    def client(self) -> Client:
        return Client(self.socket)

    def worker(self, name: str = "0") -> dict[str, Any]:
        return self.workers()[name]

    def wait_for(self, what: str, condition: Callable[[], Any], patience: float) -> float:
        """Seconds until it was so."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > patience:
                raise TimeoutError(f"waited {patience:g} s in vain for {what}:\n{self.log[-2000:]}")
            time.sleep(0.02)
        return time.monotonic() - started

    def ready(self, patience: float) -> float:
        """Seconds until every worker was; a worker that can't load is not waited for."""

        def all_ready() -> bool:
            workers = self.workers().values()
            failed = [w["reason"] for w in workers if w["state"] == "failed"]
            if failed:
                raise RuntimeError(f"a worker can't load: {failed[0]}")
            return bool(workers) and all(w["state"] == "ready" for w in workers)

        return self.wait_for("the workers", all_ready, patience)

    def replaced(self, pid: int, patience: float) -> float:
        """Seconds until worker 0 is another process and every worker is ready, or at work."""

        def done() -> bool:
            workers = self.workers()
            loaded = all(worker["state"] in ("ready", "busy") for worker in workers.values())
            return loaded and workers["0"]["pid"] not in (None, pid)

        return self.wait_for("another process", done, patience)

    def doctor(self) -> list[dict[str, Any]]:
        argv = [sys.executable, "-m", "asrd.asrctl.cli", "--socket", self.socket]
        told = subprocess.run(
            [*argv, "doctor", "--json"],
            env={**os.environ, "ASRD_CONFIG": str(self.tmp / "asrd.toml")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        found: list[dict[str, Any]] = json.loads(told.stdout)
        return found


def with_workers(module: str) -> type[Service]:
    """Those of a daemon that are changed by that module (tests.support.changed)."""

    class Changed(Service):
        program = ("-m", "tests.support.changed", module)

    return Changed


@contextlib.contextmanager
def environment(**changes: str | None) -> Iterator[None]:
    """Of this process, and so of what it starts; None takes a variable away."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def service(
    directory: Path,
    device: str,
    *arguments: str,
    worker: str = "",
    cpu_threads: int = 1,
    kind: type[Service] = Service,
) -> Iterator[Service]:
    """`worker`: more lines of [worker]."""
    directory.mkdir()
    config = f"{CONFIG}cpu_threads = {cpu_threads}\n{worker}"
    running = kind(directory, "--device", device, *arguments, config=config)
    with running:
        yield running
