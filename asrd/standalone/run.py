"""`asrd run`: front and workers without systemd, in the foreground."""

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from asrd.config import FrontSettings, config_path, load_front, load_worker
from asrd.front.listener import bind, unbind
from asrd.journal import setup_logging
from asrd.standalone.supervisor import Patience, Supervisor, Unit, program
from asrd.worker.tuning import WORKER_ENVIRONMENT

log = logging.getLogger(__name__)

# Time for the workers to stop; the front drains for as long as its jobs may run.
_WORKER_GRACE_SECONDS = 10.0
_FRONT_START_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="DIR-OR-NAME", help="a directory, a cached name, or `demo`"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--compute-type", metavar="TYPE", help="int8, float16, int8_float16 …")
    parser.add_argument("--workers", type=_count(1), default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--spares",
        type=_count(0),
        default=0,
        metavar="N",
        help="workers more that are kept loaded, for when one of the others dies (default: 0)",
    )
    parser.add_argument(
        "--socket", metavar="PATH", help="default: $ASRD_SOCKET, else the settings'"
    )
    parser.add_argument("--config", metavar="FILE", help="the settings' file (asrd.toml)")
    parser.add_argument(
        "--watchdog",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="kill a process that shows no progress for so long (default: 10)",
    )
    parser.add_argument(
        "--start-timeout",
        type=_seconds,
        default=900.0,
        metavar="SECONDS",
        help="kill a worker that has not loaded its model after so long (default: 900)",
    )


def _count(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        number = int(text)
        if not least <= number <= 64:
            raise argparse.ArgumentTypeError(f"must be between {least} and 64")
        return number

    return count


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 86_400:
        raise argparse.ArgumentTypeError("must be between 0.1 and 86400")
    return number


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError."""
    path = config_path(args.config)
    socket_path = args.socket or os.environ.get("ASRD_SOCKET")
    front = load_front(path, {"socket": socket_path})
    crew = Crew(
        args.workers,
        worker_environment(args.model, args.device, args.compute_type),
        Patience(args.start_timeout, args.watchdog),
        spares=args.spares,
    )
    for name in crew.names():
        settings = load_worker(path, name)
        if name == "0" and not (args.model or settings.model):
            print("asrd: no model is configured: using the bundled demo model", file=sys.stderr)
    setup_logging(front.log_level, "asrd-run")
    anyio.run(_run, front, path, crew)
    return 0


@dataclass(frozen=True)
class Crew:
    """Which workers there are, and how they are kept. `spares` stand in reserve beside `workers`;
    `stderr` is a descriptor for their logs and the front's, if not this process's own."""

    workers: int
    environment: Mapping[str, str]
    patience: Patience = Patience()
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
    flags = {"MODEL": model, "DEVICE": device, "COMPUTE_TYPE": compute_type}
    told = {f"ASRD_WORKER_{key}": value for key, value in flags.items() if value}
    return {key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()} | told


async def _run(front: FrontSettings, config: Path, crew: Crew) -> None:
    with anyio.open_signal_receiver(*_stop_signals()) as signals:
        async with (
            supervised(front, config, crew) as supervisor,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_announce, supervisor, front.socket)
            await anext(signals)
            print("asrd: finishing accepted jobs; a second signal ends them", file=sys.stderr)
            tasks.start_soon(_kill_on_second_signal, signals, supervisor)
            await supervisor.stop(front.max_run_seconds)
            tasks.cancel_scope.cancel()


def _stop_signals() -> list[signal.Signals]:
    """A closed terminal is one of them, unless we were started under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT] + [signal.SIGHUP] * (not ignored)


async def _announce(supervisor: Supervisor, path: str) -> None:
    await supervisor.units[0].ready.wait()
    print(f"asrd: listening at {path}", file=sys.stderr)


async def _kill_on_second_signal(
    signals: AsyncIterator[signal.Signals], supervisor: Supervisor
) -> None:
    async for _ in signals:
        for unit in supervisor.units:
            unit.signal(signal.SIGKILL)


@asynccontextmanager
async def supervised(front: FrontSettings, config: Path, crew: Crew) -> AsyncIterator[Supervisor]:
    """Front and workers, alive until the block ends; nothing of them is left behind.

    Raises ConfigError if the socket can't be listened at.
    """
    directory = Path(tempfile.mkdtemp(prefix="asrd-"))
    sockets: list[socket.socket] = []
    try:
        worker_dir = directory / "worker"
        worker_dir.mkdir(mode=0o700)
        front_sockets = {"asrd": bind(front.socket)}
        sockets.append(front_sockets["asrd"])
        if front.status_socket:
            front_sockets["status"] = bind(front.status_socket, 0o666)
            sockets.append(front_sockets["status"])
        shared = {"ASRD_CONFIG": str(config), "ASRD_FRONT_WORKER_DIR": str(worker_dir)}
        # The front loads nothing that takes long.
        prompt = replace(crew.patience, start=min(crew.patience.start, _FRONT_START_SECONDS))
        serve = program("asrd.main", "serve")
        units = [Unit("asrd", serve, front_sockets, shared, prompt, crew.stderr)]
        for name in crew.names():
            sockets.append(bind(str(worker_dir / f"{name}.sock"), 0o600))
            units.append(crew.unit(name, sockets[-1], shared))
        supervisor = Supervisor(units, directory)
        async with anyio.create_task_group() as tasks:
            supervisor.start(tasks)
            try:
                yield supervisor
            finally:
                with anyio.CancelScope(shield=True):
                    await supervisor.stop(_WORKER_GRACE_SECONDS)
                tasks.cancel_scope.cancel()
    finally:
        for sock in sockets:
            path = sock.getsockname()
            sock.close()
            unbind(path)
        shutil.rmtree(directory, ignore_errors=True)
