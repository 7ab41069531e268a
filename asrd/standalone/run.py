"""`asrd run`: front and workers without systemd, in the foreground."""

import argparse
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path

import anyio

from asrd import systemd
from asrd.client.connect import SOCKET_NAME, is_private, own_directories
from asrd.config import absolute, config_path, load_front, load_worker
from asrd.errors import AsrdError, ConfigError
from asrd.journal import setup_logging
from asrd.listener import shown
from asrd.settings import DEFAULT_SOCKET, FrontSettings
from asrd.standalone import flags
from asrd.standalone.orphans import reap_orphans
from asrd.standalone.pool import WorkerPool, supervised, worker_environment
from asrd.standalone.supervisor import Supervisor, Timeouts, expect_children, first_of
from asrd.stdio import say

log = logging.getLogger(__name__)

# The interval between two checks that our private directory still exists.
_MISSING_SECONDS = 1.0
# Files opened by the programs with few clients and a model of one file, and by the supervisor for
# each worker. Measured, see tests/process/test_starting.py.
_DESCRIPTORS, _DESCRIPTORS_PER_WORKER = 24, 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="DIR-OR-NAME", help="a directory, a model's name, or `demo`"
    )
    flags.add_engine_arguments(parser)
    parser.add_argument("--workers", type=flags.count(1), default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--spares",
        type=flags.count(0),
        default=0,
        metavar="N",
        help="additional loaded workers, to take over when another one dies (default: 0)",
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="default: $ASRD_SOCKET, else the settings', else $XDG_RUNTIME_DIR/asrd/asrd.sock",
    )
    parser.add_argument(
        "--wyoming",
        metavar="HOST:PORT",
        help="listen also for Wyoming clients such as Home Assistant, at 127.0.0.1:10300 for "
        "example; anybody who reaches it may transcribe",
    )
    parser.add_argument("--config", metavar="FILE", help="the settings file (asrd.toml)")
    parser.add_argument(
        "--watchdog",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="kill a process that shows no progress for this time; a worker's job may take "
        "stall_seconds before that (default: 10)",
    )
    parser.add_argument(
        "--start-timeout",
        type=_seconds,
        default=900.0,
        metavar="SECONDS",
        help="kill a worker that has not loaded its model within this time (default: 900)",
    )


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 86_400:
        raise argparse.ArgumentTypeError("must be between 0.1 and 86400")
    return number


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError."""
    expect_children()
    path = Path(absolute(str(config_path(args.config))))
    front = _front_settings(path, args.socket or os.environ.get("ASRD_SOCKET"), args.wyoming)
    pool = WorkerPool(
        args.workers,
        worker_environment(flags.model(args.model), args.device, args.compute_type, args.threads),
        Timeouts(args.start_timeout, args.watchdog),
        spares=args.spares,
    )
    _allow_descriptors(len(pool.names()))
    for name in pool.names():
        settings = load_worker(path, name)
        if name == "0" and not (args.model or settings.model):
            say("asrd: no model is configured: using the bundled demo model")
    setup_logging(front.log_level, "asrd-run")
    ended = anyio.run(_run, front, path, pool)
    if ended is not None:
        raise ended
    return 0


def _front_settings(path: Path, socket: str | None, wyoming: str | None) -> FrontSettings:
    """Returns the settings with absolute paths. Raises ConfigError."""
    settings = load_front(path, {"socket": socket, "wyoming": wyoming}, {"socket": ""})
    return replace(
        settings,
        socket=_named_socket(settings.socket) if settings.socket else _own_socket(),
        status_socket=settings.status_socket and _named_socket(settings.status_socket),
    )


def _named_socket(path: str) -> str:
    """Makes the socket's directory if it is missing, and returns the absolute path. Raises
    ConfigError."""
    directory = Path(absolute(path)).parent
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"can't make {directory} for the socket: {error.strerror}; --socket PATH names another "
            "place"
        ) from None
    return absolute(path)


def _own_socket() -> str:
    """Makes the directory where this user's clients look for the socket, and returns the socket's
    path. Raises ConfigError."""
    for directory in own_directories():
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            problem = f"can't make {directory}: {error.strerror}"
            continue
        if is_private(directory):
            return str(directory / SOCKET_NAME)
        problem = f"{directory} belongs to another user, or others may write to it"
    raise ConfigError(f"no safe place for the socket ({problem}): name one with --socket")


def _allow_descriptors(workers: int) -> None:
    """Sets the limit as high as allowed. Raises ConfigError if that is too low to start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = _DESCRIPTORS + workers * _DESCRIPTORS_PER_WORKER
    if hard < needed:
        raise ConfigError(
            f"`asrd run` needs {needed} open files at least, and {hard} are allowed here "
            "(ulimit -n): allow more, 1024 or so"
        )


class _End(Enum):
    """The reason to stop front and workers."""

    SIGNAL = auto()
    HOPELESS = auto()
    LOST = auto()


async def _run(front: FrontSettings, config: Path, pool: WorkerPool) -> AsrdError | None:
    """Serves until a signal; returns the error if one ended it before that."""
    with anyio.open_signal_receiver(systemd.RESTART_SIGNAL, *_stop_signals()) as signals:
        while True:
            async with supervised(front, config, pool) as supervisor:
                end = await _serve(supervisor, front, signals)
                if end is _End.HOPELESS:
                    return supervisor.hopeless_because
            if end is _End.SIGNAL:
                return None


async def _serve(
    supervisor: Supervisor, front: FrontSettings, signals: AsyncIterator[signal.Signals]
) -> _End:
    """Serves until there is a reason to stop, then finishes the accepted jobs."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_announce, supervisor, front.socket)
        if os.getpid() == 1:
            tasks.start_soon(reap_orphans, lambda: [unit.pid for unit in supervisor.units])
        end = await first_of(
            {
                _End.SIGNAL: lambda: _until_stopped(supervisor, signals),
                _End.HOPELESS: supervisor.hopeless.wait,
                _End.LOST: lambda: _until_lost(supervisor.directory),
            }
        )

        async def kill_on_signal() -> None:
            nonlocal end
            async for number in signals:
                if number == systemd.RESTART_SIGNAL:
                    continue
                end = _End.SIGNAL
                for unit in supervisor.units:
                    unit.signal(signal.SIGKILL)

        if end is not _End.HOPELESS:
            if end is _End.SIGNAL:
                say("asrd: finishing accepted jobs; a second signal ends them")
            else:
                log.error("%s was removed: starting again after this", supervisor.directory)
            tasks.start_soon(kill_on_signal)
            await supervisor.stop(front.max_run_seconds)
        tasks.cancel_scope.cancel()
    return end


async def _until_stopped(supervisor: Supervisor, signals: AsyncIterator[signal.Signals]) -> None:
    front = supervisor.units[0]
    restarted: int | None = None
    async for number in signals:
        if number != systemd.RESTART_SIGNAL:
            return
        # Before it is ready, it has nothing to hand over; a second signal would end its drain.
        if front.ready.is_set() and front.pid != restarted:
            restarted = front.pid
            log.info("restarting the front")
            front.signal(systemd.RESTART_SIGNAL)


async def _until_lost(directory: Path) -> None:
    """Waits until the directory is removed, with the workers' sockets in it."""
    while (directory / "worker").exists():
        await anyio.sleep(_MISSING_SECONDS)


def _stop_signals() -> list[signal.Signals]:
    """Returns the signals to stop at: SIGHUP, too, unless we run under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT] + [signal.SIGHUP] * (not ignored)


async def _announce(supervisor: Supervisor, path: str) -> None:
    await supervisor.units[0].ready.wait()
    say(f"asrd: listening at {path}")
    door = supervisor.units[0].sockets.get("wyoming")
    if door is not None:
        say(f"asrd: Wyoming clients: anybody who reaches {shown(door)} may transcribe")
    if path != DEFAULT_SOCKET and os.access(DEFAULT_SOCKET, os.W_OK):
        say(f"asrd: clients use {DEFAULT_SOCKET} unless you: export ASRD_SOCKET={path}")
