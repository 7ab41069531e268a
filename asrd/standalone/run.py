"""`asrd run`: front and workers without systemd, in the foreground."""

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
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
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="default: 1")
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


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError("must be between 1 and 64")
    return number


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
    environment = worker_environment(args.model, args.device, args.compute_type)
    for index in range(args.workers):
        settings = load_worker(path, str(index))
        if index == 0 and not (args.model or settings.model):
            print("asrd: no model is configured: using the bundled demo model", file=sys.stderr)
    setup_logging(front.log_level, "asrd-run")
    patience = Patience(args.start_timeout, args.watchdog)
    anyio.run(_run, front, path, args.workers, environment, patience)
    return 0


def worker_environment(
    model: str | None, device: str | None, compute_type: str | None
) -> dict[str, str]:
    """Flags, as the worker reads them, and what makes its libraries fast unless it is set."""
    flags = {"MODEL": model, "DEVICE": device, "COMPUTE_TYPE": compute_type}
    told = {f"ASRD_WORKER_{key}": value for key, value in flags.items() if value}
    return {key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()} | told


async def _run(
    front: FrontSettings,
    config: Path,
    workers: int,
    environment: dict[str, str],
    patience: Patience,
) -> None:
    with anyio.open_signal_receiver(*_stop_signals()) as signals:
        async with (
            supervised(front, config, workers, environment, patience) as supervisor,
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
async def supervised(
    front: FrontSettings,
    config: Path,
    workers: int,
    environment: dict[str, str],
    patience: Patience,
    stderr: int | None = None,
) -> AsyncIterator[Supervisor]:
    """Front and workers, alive until the block ends; nothing of them is left behind.

    `stderr`: a descriptor for their logs, if not this process's own.
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
        prompt = replace(patience, start=min(patience.start, _FRONT_START_SECONDS))
        units = [
            Unit("asrd", program("asrd.main", "serve"), front_sockets, shared, prompt, stderr),
        ]
        for index in range(workers):
            listener = bind(str(worker_dir / f"{index}.sock"), 0o600)
            sockets.append(listener)
            argv = program("asrd.worker.worker", str(index))
            env = {**shared, **environment}
            sockets_ = {"worker": listener}
            units.append(Unit(f"asr-worker@{index}", argv, sockets_, env, patience, stderr))
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
