"""Front and workers as the supervisor's units, in a private directory."""

import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from asrd.config import absolute
from asrd.errors import ConfigError
from asrd.listener import PUBLIC_MODE, bind, unbind
from asrd.settings import FrontSettings
from asrd.standalone.supervisor import Supervisor, Timeouts, Unit, program
from asrd.worker.environment import WORKER_ENVIRONMENT

# Time for the workers to stop; the front drains for as long as its jobs may run.
WORKER_GRACE_SECONDS = 10.0
_FRONT_START_SECONDS = 30.0


@dataclass(frozen=True)
class WorkerPool:
    """Which workers there are, and how they are kept. `spares` stand in reserve beside `workers`;
    `stderr` is a descriptor for their logs and the front's, if not this process's own."""

    workers: int
    environment: Mapping[str, str]
    patience: Timeouts = Timeouts()
    stderr: int | None = None
    spares: int = 0

    def names(self) -> list[str]:
        return [str(index) for index in range(self.workers + self.spares)]

    def unit(self, name: str, listener: socket.socket, shared: Mapping[str, str]) -> Unit:
        environment = {**shared, **self.environment}
        if int(name) >= self.workers:
            environment["ASRD_WORKER_SPARE"] = "true"
        return Unit(
            f"asr-worker@{name}",
            program("asrd.worker.main", name),
            {"worker": listener},
            environment,
            self.patience,
            self.stderr,
        )


def worker_environment(
    model: str | None, device: str | None, compute_type: str | None
) -> dict[str, str]:
    """Flags, as the worker reads them, and what makes its libraries fast unless it is set."""
    # The workers have another working directory.
    homes = {name: os.environ.get(name, "/") for name in ("HF_HOME", "HF_HUB_CACHE")}
    moved = {name: absolute(path) for name, path in homes.items() if not path.startswith("/")}
    flags = {"MODEL": model, "DEVICE": device, "COMPUTE_TYPE": compute_type}
    told = {f"ASRD_WORKER_{key}": value for key, value in flags.items() if value}
    fast = {key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()}
    return {**fast, **moved, **told}


@asynccontextmanager
async def supervised(
    front: FrontSettings, config: Path, crew: WorkerPool
) -> AsyncIterator[Supervisor]:
    """Front and workers, alive until the block ends; nothing of them is left behind.

    Raises ConfigError if the socket can't be listened at, or there is no room for their own ones.
    """
    with ExitStack() as stack:
        directory = _private_directory()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        worker_dir = directory / "worker"

        def listen(path: str, *mode: int) -> socket.socket:
            listener = bind(path, *mode)
            stack.callback(unbind, path)
            return stack.enter_context(listener)

        front_sockets = {"asrd": listen(front.socket)}
        if front.status_socket:
            front_sockets["status"] = listen(front.status_socket, PUBLIC_MODE)
        shared = {"ASRD_CONFIG": str(config), "ASRD_FRONT_WORKER_DIR": str(worker_dir)}
        # The front loads nothing that takes long.
        prompt = replace(crew.patience, start=min(crew.patience.start, _FRONT_START_SECONDS))
        serve = program("asrd.main", "serve")
        units = [Unit("asrd", serve, front_sockets, shared, prompt, crew.stderr)]
        for name in crew.names():
            units.append(crew.unit(name, listen(str(worker_dir / f"{name}.sock"), 0o600), shared))
        # They may be others by then.
        for unit in units:
            stack.callback(unit.close_sockets)
        supervisor = Supervisor(units, directory)
        async with anyio.create_task_group() as tasks:
            supervisor.start(tasks)
            try:
                yield supervisor
            finally:
                with anyio.CancelScope(shield=True):
                    await supervisor.stop(WORKER_GRACE_SECONDS)
                tasks.cancel_scope.cancel()


def _private_directory() -> Path:
    """For the sockets between front, workers and supervisor. Raises ConfigError."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="asrd-"))
        (directory / "worker").mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(f"no private directory can be made: {error}") from None
    return directory
