"""A daemon with one worker for one program: in a private directory, and gone with the program."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import NamedTuple

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal

from asrd.errors import AsrdError, ConfigError
from asrd.journal import setup_logging
from asrd.settings import FrontSettings
from asrd.standalone.pool import WorkerPool, private_directory, supervised
from asrd.standalone.supervisor import Supervisor, expect_children, first_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Starts of the worker until the model is loaded. A crash then is rarely an accident: more often
# the model needs more memory than there is.
_TRIES = 2
# A window of a large model on a busy CPU may take minutes, and a person can end what hangs.
_STALL_SECONDS = 900
# The front's limits protect a daemon of many clients. This one has a single client, whose
# recordings may be as long as the settings allow at most. A worker that crashed may take as long to
# load its model again as at the start.
_FRONT = """\
[front]
max_wait_seconds = 900
max_run_seconds = 604_800
max_audio_seconds = 604_800
max_file_bytes = 35_184_372_088_832
"""


class Daemon(NamedTuple):
    """A running daemon: the path of its socket, and its processes (the front, and a worker)."""

    socket: str
    supervisor: Supervisor


def prepare(verbose: bool) -> None:
    """Prepares this process, once and in its main thread, for a daemon of its own."""
    expect_children()
    # SIGTERM and SIGHUP act like Ctrl-C, so that nothing is left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    # Settings for another front.
    for name in [name for name in os.environ if name.startswith("ASRD_FRONT_")]:
        del os.environ[name]
    if verbose:
        setup_logging("info", "asrd")
    else:
        # Otherwise Python writes warnings to stderr.
        logging.getLogger("asrd").addHandler(logging.NullHandler())


@asynccontextmanager
async def private_daemon(
    environment: Mapping[str, str], verbose: bool = False
) -> AsyncIterator[Daemon]:
    """Runs a daemon until the block ends; its worker may still be loading the model.

    `environment` is the worker's. `verbose`: the processes may write their logs to stderr. Raises
    ConfigError.
    """
    with private_directory() as directory, open(os.devnull, "wb") as nowhere:
        config = directory / "asrd.toml"
        config.write_text(_FRONT)
        settings = FrontSettings(socket=str(directory / "asrd.sock"))
        stderr = None if verbose else nowhere.fileno()
        stall = os.environ.get("ASRD_WORKER_STALL_SECONDS", str(_STALL_SECONDS))
        environment = {**environment, "ASRD_WORKER_STALL_SECONDS": stall}
        # No grace: nothing is under way at the end, or nobody waits for it any more.
        pool = WorkerPool(1, environment, stderr=stderr, tries=_TRIES, grace=0.0)
        async with supervised(settings, config, pool) as supervisor:
            yield Daemon(settings.socket, supervisor)


async def until_ready(supervisor: Supervisor) -> None:
    """Waits until the model is loaded. Raises ConfigError if it can't be loaded as configured, and
    AsrdError if front or worker ends again and again."""
    worker = supervisor.units[-1]
    await first_of({"ready": worker.ready.wait, "failed": supervisor.hopeless.wait})
    if supervisor.hopeless_because is None:
        return
    if isinstance(supervisor.hopeless_because, ConfigError):
        raise supervisor.hopeless_because
    raise AsrdError(f"{supervisor.hopeless_because}; --verbose shows its log")


@contextmanager
def in_background(environment: Mapping[str, str], verbose: bool) -> Iterator[str]:
    """Runs a daemon in another thread; yields its socket when the model is loaded.

    The main thread stays free for a blocking client, and Ctrl-C ends that at once. When the block
    ends, further signals are ignored until nothing is left behind. Raises as `private_daemon` and
    `until_ready`.
    """

    async def keep(*, task_status: TaskStatus[Daemon]) -> None:
        async with private_daemon(environment, verbose) as daemon:
            task_status.started(daemon)
            await anyio.sleep_forever()

    # The processes die with the thread that started them (prctl(2)), so it must outlive them.
    with ExitStack() as stack:
        with _uninterrupted():
            portal = stack.enter_context(start_blocking_portal())
        running, daemon = portal.start_task(keep)
        try:
            portal.call(until_ready, daemon.supervisor)
            yield daemon.socket
        finally:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            running.cancel()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts off KeyboardInterrupt until the block ends: while a portal starts, anyio would wait
    forever for the thread that it has just started."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = {number: each for number, each in before.items() if callable(each)}
    for number in handled:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
