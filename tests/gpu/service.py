"""`asrd run` on the device under test, with enough patience for the driver's compiler."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asrd import Client
from tests.support.daemons import Daemon

_CONFIG = "[front]\nqueue_max = 64\nmax_wait_seconds = 120\n[worker]\n"
# Seconds until a worker is ready, while the driver compiles for a new GPU.
COLD = 240.0


class Service(Daemon):
    def client(self) -> Client:
        return Client(self.socket)

    def worker(self, name: str = "0") -> dict[str, Any]:
        return self.workers()[name]

    def wait_for(self, subject: str, condition: Callable[[], Any], patience: float) -> float:
        """Returns the seconds until the condition was true."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > patience:
                log = self.log[-2000:]
                raise TimeoutError(f"{subject} did not come within {patience:g} s:\n{log}")
            time.sleep(0.02)
        return time.monotonic() - started

    def ready(self) -> float:
        """Returns the seconds until every worker was ready. Raises if one can't load its model."""

        def all_ready() -> bool:
            workers = self.workers().values()
            failed = [w["reason"] for w in workers if w["state"] == "failed"]
            if failed:
                raise RuntimeError(f"a worker can't load: {failed[0]}")
            return bool(workers) and all(w["state"] == "ready" for w in workers)

        return self.wait_for("the workers", all_ready, COLD)

    def replaced(self, pid: int) -> float:
        """Returns the seconds until worker 0 has another pid and every worker is ready or busy."""

        def done() -> bool:
            workers = self.workers()
            loaded = all(worker["state"] in ("ready", "busy") for worker in workers.values())
            return loaded and workers["0"]["pid"] not in (None, pid)

        return self.wait_for("another process", done, COLD)


def with_workers(module: str) -> type[Service]:
    """Returns a Service whose workers are changed by that module (tests.support.changed)."""

    class Changed(Service):
        program = ("-m", "tests.support.changed", module)

    return Changed


@contextlib.contextmanager
def service(
    directory: Path,
    device: str,
    *arguments: str,
    worker: str = "",
    cpu_threads: int = 1,
    kind: type[Service] = Service,
) -> Iterator[Service]:
    """Runs the daemon in a new directory; `worker` are more lines of [worker]."""
    directory.mkdir()
    config = f"{_CONFIG}cpu_threads = {cpu_threads}\n{worker}"
    running = kind(directory, "--device", device, *arguments, config=config)
    with running:
        yield running
