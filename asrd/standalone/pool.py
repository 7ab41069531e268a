"""Front and workers as units of the supervisor, in a private directory."""

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from asrd.config import absolute
from asrd.errors import ConfigError
from asrd.listener import PUBLIC_MODE, bind, bind_tcp, unbind
from asrd.settings import FrontSettings
from asrd.standalone.programs import program
from asrd.standalone.supervisor import Supervisor, Timeouts, Unit
from asrd.worker.environment import WORKER_ENVIRONMENT
from asrd.worker.neighbours import WORKERS_VARIABLE

# Time for a worker to stop. The front may take as long as its jobs may run.
WORKER_GRACE_SECONDS = 10.0
_FRONT_START_SECONDS = 30.0
_FRONT_TRIES = 5
# Directories of models.
_HOMES = ("ASRD_MODELS", "HF_HOME", "HF_HUB_CACHE")


@dataclass(frozen=True)
class WorkerPool:
    """The number of workers and spares, and how they run. `stderr` is a descriptor for their logs
    and the front's, or None for this process's own. `tries`: see Unit. `grace`: seconds for each
    process to stop."""

    workers: int
    environment: Mapping[str, str]
    timeouts: Timeouts = Timeouts()
    stderr: int | None = None
    spares: int = 0
    tries: int | None = None
    grace: float = WORKER_GRACE_SECONDS

    def names(self) -> list[str]:
        return [str(index) for index in range(self.workers + self.spares)]


def worker_environment(
    model: str | None, device: str | None, compute_type: str | None, threads: int | None = None
) -> dict[str, str]:
    """Returns the flags as the worker's variables, and defaults for variables of its libraries."""
    # The workers run in another working directory.
    homes = {name: os.environ.get(name, "/") for name in _HOMES}
    moved = {name: absolute(path) for name, path in homes.items() if not path.startswith("/")}
    flags = {"MODEL": model, "DEVICE": device, "COMPUTE_TYPE": compute_type}
    settings = {f"ASRD_WORKER_{key}": value for key, value in flags.items() if value}
    if threads is not None:
        settings["ASRD_WORKER_CPU_THREADS"] = str(threads)
    fast = {key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()}
    return {**fast, **moved, **settings}


@contextmanager
def private_directory(otherwise: Path | None = None) -> Iterator[Path]:
    """Makes a directory that is removed at the end: among the temporary files, or `otherwise` in
    this one. Raises ConfigError."""
    problems = []
    for place in (None, otherwise):
        try:
            made = tempfile.TemporaryDirectory(
                prefix="asrd-", dir=place, ignore_cleanup_errors=True
            )
            break
        except OSError as error:
            problems.append(str(error).partition("] ")[2] or str(error))
    else:
        raise ConfigError(
            f"no directory for temporary files can be written ({problems[0]}): mount one at /tmp, "
            "or name one by the variable TMPDIR"
        )
    with made as directory:
        yield Path(directory)


@asynccontextmanager
async def supervised(
    front: FrontSettings, config: Path, pool: WorkerPool
) -> AsyncIterator[Supervisor]:
    """Keeps front and workers alive until the block ends; then nothing of them is left behind.

    Raises ConfigError if a socket or the private directory can't be made.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(private_directory(Path(front.socket).parent))
        worker_dir = directory / "worker"
        worker_dir.mkdir(mode=0o700)

        def listen(path: str, *mode: int) -> socket.socket:
            listener = bind(path, *mode)
            stack.callback(unbind, path)
            return stack.enter_context(listener)

        front_sockets = {"asrd": listen(front.socket)}
        if front.status_socket:
            front_sockets["status"] = listen(front.status_socket, PUBLIC_MODE)
        if front.wyoming:
            front_sockets["wyoming"] = stack.enter_context(bind_tcp(front.wyoming))
        shared = {
            "ASRD_CONFIG": str(config),
            "ASRD_FRONT_WORKER_DIR": str(worker_dir),
            "ASRD_FRONT_CRASH_FILE": str(directory / "crashes.json"),
        }
        # Spares wait, so they need no share of the cores.
        workers = {**shared, WORKERS_VARIABLE: str(pool.workers)}
        # The front has no model to load.
        timeouts = replace(pool.timeouts, start=min(pool.timeouts.start, _FRONT_START_SECONDS))
        serve = program("asrd.main", "serve")
        units = [
            Unit("asrd", serve, front_sockets, shared, timeouts, pool.stderr, tries=_FRONT_TRIES)
        ]
        for index, name in enumerate(pool.names()):
            run = program("asrd.worker.main", name)
            sockets = {"worker": listen(str(worker_dir / f"{name}.sock"), 0o600)}
            spare = {"ASRD_WORKER_SPARE": "true"} if index >= pool.workers else {}
            environment = {**workers, **pool.environment, **spare}
            units.append(
                Unit(
                    f"asr-worker@{name}",
                    run,
                    sockets,
                    environment,
                    pool.timeouts,
                    pool.stderr,
                    tries=pool.tries,
                )
            )
        # `unit.sockets` may hold other sockets by then.
        for unit in units:
            stack.callback(unit.close_sockets)
        supervisor = Supervisor(units, directory)
        async with anyio.create_task_group() as tasks:
            supervisor.start(tasks)
            try:
                yield supervisor
            finally:
                with anyio.CancelScope(shield=True):
                    await supervisor.stop(pool.grace)
                tasks.cancel_scope.cancel()
