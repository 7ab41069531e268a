"""`asrd run`: front and workers without systemd, in the foreground."""

import argparse
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

import anyio

from asrd.client.connect import SOCKET_NAME, is_private, own_directories
from asrd.config import absolute, config_path, load_front, load_worker
from asrd.engine.models import REPOSITORIES
from asrd.errors import AsrdError, ConfigError
from asrd.journal import setup_logging
from asrd.settings import DEFAULT_SOCKET, FrontSettings
from asrd.standalone.crew import WORKER_GRACE_SECONDS, WorkerPool, supervised, worker_environment
from asrd.standalone.supervisor import Supervisor, Timeouts
from asrd.stdio import say

log = logging.getLogger(__name__)

# How often it is looked whether our private directory is still there.
_MISSING_SECONDS = 1.0
# What the programs open with few clients and a model of one file, and what each worker costs the
# supervisor. Measured, see tests/process/test_starting.py.
_DESCRIPTORS, _DESCRIPTORS_PER_WORKER = 24, 6


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
        "--socket",
        metavar="PATH",
        help="default: $ASRD_SOCKET, else the settings', else $XDG_RUNTIME_DIR/asrd/asrd.sock",
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
    path = Path(absolute(str(config_path(args.config))))
    front = _front_settings(path, args.socket or os.environ.get("ASRD_SOCKET"))
    crew = WorkerPool(
        args.workers,
        worker_environment(_model(args.model), args.device, args.compute_type),
        Timeouts(args.start_timeout, args.watchdog),
        spares=args.spares,
    )
    _allow_descriptors(len(crew.names()))
    for name in crew.names():
        settings = load_worker(path, name)
        if name == "0" and not (args.model or settings.model):
            say("asrd: no model is configured: using the bundled demo model")
    setup_logging(front.log_level, "asrd-run")
    ended = anyio.run(_run, front, path, crew)
    if ended is not None:
        raise ended
    return 0


def _front_settings(path: Path, socket: str | None) -> FrontSettings:
    """Returns the settings, with paths that hold in any working directory. Raises ConfigError."""
    settings = load_front(path, {"socket": socket}, {"socket": ""})
    return replace(
        settings,
        socket=absolute(settings.socket) if settings.socket else _own_socket(),
        status_socket=settings.status_socket and absolute(settings.status_socket),
    )


def _own_socket() -> str:
    """Makes the directory where this user's clients look, and returns the path of the socket in it.
    Raises ConfigError."""
    for directory in own_directories():
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            problem = f"{directory} can't be made: {error.strerror}"
            continue
        if is_private(directory):
            return str(directory / SOCKET_NAME)
        problem = f"{directory} is another user's, or others may write to it"
    raise ConfigError(f"there is no safe place for the socket ({problem}): give one with --socket")


def _model(flag: str | None) -> str | None:
    """Returns the model for the workers, who have another working directory: a path as an absolute
    one."""
    given = flag or os.environ.get("ASRD_WORKER_MODEL")
    if not given or given == "demo" or given in REPOSITORIES:
        return given
    # Not Path.exists: it raises for a name that is too long.
    is_path = given.startswith(("~/", "./", "../")) or os.path.exists(given)  # noqa: PTH110
    return absolute(given) if is_path else given


def _allow_descriptors(workers: int) -> None:
    """Raises the limit as far as allowed. Raises ConfigError if that is too little to start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = _DESCRIPTORS + workers * _DESCRIPTORS_PER_WORKER
    if hard < needed:
        raise ConfigError(
            f"`asrd run` needs {needed} open files at least, and {hard} are allowed here "
            "(ulimit -n): allow more, 1024 or so"
        )


class _End(Enum):
    """Why a life of front and workers ended."""

    SIGNAL = auto()
    HOPELESS = auto()
    LOST = auto()


async def _run(front: FrontSettings, config: Path, crew: WorkerPool) -> AsrdError | None:
    """Serve until a signal; returns the error that ended it before that."""
    with anyio.open_signal_receiver(*_stop_signals()) as signals:
        while True:
            async with supervised(front, config, crew) as supervisor:
                end = await _serve(supervisor, front, signals)
                if end is _End.HOPELESS:
                    return supervisor.hopeless_because
            if end is _End.SIGNAL:
                return None


async def _serve(
    supervisor: Supervisor, front: FrontSettings, signals: AsyncIterator[signal.Signals]
) -> _End:
    """Serves until there is a reason to end, then finishes what was accepted."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_announce, supervisor, front.socket)
        end = await _first(
            {
                _End.SIGNAL: signals.__anext__,
                _End.HOPELESS: supervisor.hopeless.wait,
                _End.LOST: lambda: _until_lost(supervisor.directory),
            }
        )
        if end is _End.HOPELESS:
            await supervisor.stop(WORKER_GRACE_SECONDS)
        else:
            if end is _End.SIGNAL:
                say("asrd: finishing accepted jobs; a second signal ends them")
            else:
                log.error("%s was removed: starting again after this", supervisor.directory)
            hurry = _Hurry()
            tasks.start_soon(hurry.kill_on_signal, signals, supervisor)
            await supervisor.stop(front.max_run_seconds)
            end = _End.SIGNAL if hurry.signalled else end
        tasks.cancel_scope.cancel()
    return end


async def _first(waits: dict[_End, Callable[[], Awaitable[object]]]) -> _End:
    found: list[_End] = []
    async with anyio.create_task_group() as tasks:

        async def wait(end: _End, happens: Callable[[], Awaitable[object]]) -> None:
            await happens()
            found.append(end)
            tasks.cancel_scope.cancel()

        for end, happens in waits.items():
            tasks.start_soon(wait, end, happens)
    return found[0]


async def _until_lost(directory: Path) -> None:
    """Waits until the directory was removed, and with it the sockets of the workers."""
    while (directory / "worker").exists():
        await anyio.sleep(_MISSING_SECONDS)


def _stop_signals() -> list[signal.Signals]:
    """A closed terminal is one of them, unless we were started under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT] + [signal.SIGHUP] * (not ignored)


async def _announce(supervisor: Supervisor, path: str) -> None:
    await supervisor.units[0].ready.wait()
    say(f"asrd: listening at {path}")
    if path != DEFAULT_SOCKET and os.access(DEFAULT_SOCKET, os.W_OK):
        say(f"asrd: clients use {DEFAULT_SOCKET} unless you: export ASRD_SOCKET={path}")


@dataclass
class _Hurry:
    signalled: bool = False

    async def kill_on_signal(
        self, signals: AsyncIterator[signal.Signals], supervisor: Supervisor
    ) -> None:
        """Kills everything at each signal after the one to stop."""
        async for _ in signals:
            self.signalled = True
            for unit in supervisor.units:
                unit.signal(signal.SIGKILL)
