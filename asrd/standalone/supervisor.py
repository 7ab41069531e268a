"""A small service manager for machines without systemd, with what asrd needs of its units.

It passes the same programs their sockets (sd_listen_fds(3)), reads their notifications and keeps
the descriptor that they store (sd_notify(3)), always restarts them, and kills those whose watchdog
pings stop. No other part of asrd starts processes.
"""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from asrd.errors import AsrdError, ConfigError
from asrd.exitcodes import EXIT_CANNOT_LOAD, EXIT_IDLE
from asrd.standalone import child
from asrd.standalone.exits import description, oom_kills
from asrd.standalone.programs import import_path
from asrd.systemd import HANDOVER, LISTEN_FDS_START
from asrd.wire import fdsocket
from asrd.wire.fds import OwnedFd

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds before a restart, doubled each time that the unit ends before it is ready. A unit that was
# ready is restarted at once, since a short recovery is the purpose of asrd.
_RESTART_FIRST, _RESTART_LAST = 0.1, 5.0
# Time to write a traceback between SIGABRT and SIGKILL, like TimeoutAbortSec=.
_ABORT_SECONDS = 1.0

_CAUGHT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE}


@dataclass(frozen=True)
class Timeouts:
    """Seconds until a program is ready, and then from one ping to the next (TimeoutStartSec= and
    WatchdogSec= in the units)."""

    start: float = 900.0
    watchdog: float = 10.0


@dataclass
class Unit:
    """One program to keep alive. `sockets` are its listening sockets by name; `stderr` is a
    descriptor, or None for the supervisor's own. If `on_demand`, the next start waits for a
    connection. If it ends `tries` times before it was ever ready, the supervisor gives up; None:
    never."""

    name: str
    argv: list[str]
    sockets: dict[str, socket.socket]
    environment: Mapping[str, str] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts()
    stderr: int | None = None
    on_demand: bool = False
    tries: int | None = None
    pid: int | None = None
    starts: int = 0
    ready: anyio.Event = field(default_factory=anyio.Event)
    stopping: anyio.Event = field(default_factory=anyio.Event)
    status: str = ""
    last_exit: str | None = None
    was_ready: bool = False
    # The unit's reason for an exit with EXIT_CANNOT_LOAD.
    refusal: str | None = None
    early_ends: int = 0
    _pinged: float = 0.0
    _watchdog_bit: bool = False
    # Name and descriptor, like FileDescriptorStoreMax=1.
    _stored: tuple[str, OwnedFd] | None = None
    _pidfd: OwnedFd | None = None

    def signal(self, number: int) -> None:
        """Signals the running process, if any. A pidfd never refers to another process that got the
        same pid."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd.fileno(), number)

    def replace_socket(self, name: str, fd: OwnedFd) -> None:
        """Keeps a socket that listens at the path of the one with that name. It ignores any other
        descriptor: the process may be under an attacker's control."""
        if not stat.S_ISSOCK(os.fstat(fd.fileno()).st_mode):
            return
        new = socket.socket(fileno=os.dup(fd.fileno()))
        listens = new.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and new.getsockname() == self.sockets[name].getsockname():
            self.sockets[name], new = new, self.sockets[name]
        new.close()

    @property
    def hands_over(self) -> bool:
        """True if clients wait for its next process."""
        return self._stored is not None and self._stored[0] == HANDOVER

    def unstore(self, name: str | None = None) -> None:
        """Closes the descriptor that it stored under this name; None: under any."""
        if self._stored is not None and name in (None, self._stored[0]):
            self._stored[1].close()
            self._stored = None

    def close_sockets(self) -> None:
        for sock in self.sockets.values():
            sock.close()


class Supervisor:
    def __init__(self, units: list[Unit], directory: Path) -> None:
        """`directory`: private, for the notification sockets."""
        self.units = units
        self.directory = directory
        self.hopeless = anyio.Event()
        self.hopeless_because: AsrdError | None = None
        self._gone = {unit.name: anyio.Event() for unit in units}

    def start(self, tasks: TaskGroup) -> None:
        for unit in self.units:
            tasks.start_soon(self._keep_alive, unit)

    async def stop(self, grace: float) -> None:
        """Stops one unit after another: SIGTERM, and SIGKILL after `grace` seconds. The others are
        kept alive until their turn, since the front's last jobs need the workers."""
        for unit in self.units:
            unit.stopping.set()
            unit.signal(signal.SIGTERM)
            with anyio.move_on_after(grace):
                await self._gone[unit.name].wait()
            unit.signal(signal.SIGKILL)
            await self._gone[unit.name].wait()

    async def _keep_alive(self, unit: Unit) -> None:
        try:
            notify = self._notify_socket(unit)
        except OSError as error:
            # `stop` waits for each unit, also for one that never started.
            self._gone[unit.name].set()
            problem = f"no socket for its notifications: {error.strerror or error}"
            self._give_up(ConfigError(f"{unit.name}: {problem}"))
            return
        delay = 0.0
        try:
            while True:
                if unit.on_demand:
                    connects = (partial(anyio.wait_readable, s) for s in unit.sockets.values())
                    await first_of(dict(enumerate([unit.stopping.wait, *connects])))
                with anyio.move_on_after(delay):
                    await unit.stopping.wait()
                stopping = unit.stopping.is_set()
                if stopping and not unit.hands_over:
                    break
                code = await self._try(unit, notify)
                if stopping:
                    break
                unit.on_demand = code in (EXIT_IDLE, EXIT_CANNOT_LOAD)
                crashed_early = not unit.ready.is_set()
                self._judge(unit, code)
                delay = min(_RESTART_LAST, max(_RESTART_FIRST, 2 * delay)) if crashed_early else 0
        finally:
            notify.close()
            unit.unstore()
            self._gone[unit.name].set()

    def _judge(self, unit: Unit, code: int | None) -> None:
        """Gives up if no client can ever be served: no worker can load its model and none ever
        could, or a unit has used up its tries."""
        workers = self.units[1:]
        if unit.ready.is_set():
            unit.was_ready = True
        elif code == EXIT_CANNOT_LOAD:
            unit.refusal = unit.status
        if workers and all(each.refusal and not each.was_ready for each in workers):
            self._give_up(ConfigError(str(workers[0].refusal)))
        if not unit.was_ready:
            unit.early_ends += 1
            if unit.early_ends == unit.tries:
                tries = f"in {unit.tries} tries ({unit.last_exit})"
                self._give_up(AsrdError(f"{unit.name} never got ready, {tries}"))

    def _give_up(self, error: AsrdError) -> None:
        self.hopeless_because = self.hopeless_because or error
        self.hopeless.set()

    def _notify_socket(self, unit: Unit) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            # This path is no longer than that of a worker's socket, which was bound before.
            sock.bind(str(self.directory / unit.name))
        except OSError:
            sock.close()
            raise
        return sock

    async def _try(self, unit: Unit, notify: socket.socket) -> int | None:
        """Runs the program once; returns its exit code, negative for a signal, None if it could not
        be started."""
        if unit.ready.is_set():
            unit.ready = anyio.Event()
        _forget(notify)
        try:
            unit.pid, pidfd = self._spawn(unit, notify.getsockname())
        except OSError as error:
            log.error("%s: cannot be started: %s", unit.name, error.strerror)
            unit.last_exit = f"could not be started: {error.strerror}"
            return None
        unit.starts += 1
        unit._watchdog_bit, kills = False, oom_kills()
        unit._pidfd = pidfd
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, unit, notify)
                tasks.start_soon(self._watch, unit)
                if unit.stopping.is_set():
                    tasks.start_soon(self._stop_when_ready, unit)
                await anyio.wait_readable(pidfd)
                tasks.cancel_scope.cancel()
        finally:
            code = _reap(unit.pid, pidfd)
            unit.pid = unit._pidfd = None
        unit.last_exit = description(code, unit._watchdog_bit, oom_kills() > kills)
        if not unit.stopping.is_set():
            log.warning("%s: %s", unit.name, unit.last_exit)
        return code

    async def _stop_when_ready(self, unit: Unit) -> None:
        """Its clients waited for it; now it finishes their jobs."""
        await unit.ready.wait()
        unit.signal(signal.SIGTERM)

    def _spawn(self, unit: Unit, notify_path: str) -> tuple[int, OwnedFd]:
        """Returns pid and pidfd of a new process. Raises OSError."""
        passed = {name: sock.fileno() for name, sock in unit.sockets.items()}
        if unit._stored is not None:
            passed[unit._stored[0]] = unit._stored[1].fileno()
        environment = {
            **os.environ,
            **unit.environment,
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(passed),
            "NOTIFY_SOCKET": notify_path,
            "WATCHDOG_USEC": str(int(unit.timeouts.watchdog * 1_000_000)),
            "ASRD_SUPERVISED": str(os.getpid()),
            "ASRD_LAST_EXIT": unit.last_exit or "",
            child.IMPORT_PATH: import_path(),
        }
        environment.pop("WATCHDOG_PID", None)
        environment.pop("LISTEN_PID", None)
        # Copied above the numbers that they will get in the child, so that none is overwritten.
        above = LISTEN_FDS_START + len(passed)
        stderr = 2 if unit.stderr is None else unit.stderr
        copies = [OwnedFd(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)) for fd in passed.values()]
        try:
            pid = os.posix_spawn(
                unit.argv[0],
                unit.argv,
                environment,
                file_actions=[
                    # First, before the sockets take its number. Stdout, too: ours is the output of
                    # `asrd transcribe`, and nothing that a library prints may get into it.
                    (os.POSIX_SPAWN_DUP2, stderr, 1),
                    (os.POSIX_SPAWN_DUP2, stderr, 2),
                    *(
                        (os.POSIX_SPAWN_DUP2, copy.fileno(), LISTEN_FDS_START + index)
                        for index, copy in enumerate(copies)
                    ),
                ],
                # In its own process group, so that Ctrl-C on the terminal reaches only us.
                setpgroup=0,
                setsigmask=[],
                setsigdef=_CAUGHT,
            )
        finally:
            for copy in copies:
                copy.close()
        return pid, _pidfd_of(pid)

    async def _listen(self, unit: Unit, notify: socket.socket) -> None:
        unit._pinged = anyio.current_time()
        buffer = memoryview(bytearray(4096))
        while True:
            await anyio.wait_readable(notify)
            # Not socket.recv_fds: it ignores MSG_CMSG_CLOEXEC, so that every process started later
            # would inherit the descriptors.
            count, fds = fdsocket.receive_into(notify, buffer)
            lines = bytes(buffer[:count]).decode("utf-8", "replace").splitlines()
            message = dict(line.partition("=")[::2] for line in lines)
            if "READY" in message or "WATCHDOG" in message:
                unit._pinged = anyio.current_time()
            if "READY" in message:
                unit.ready.set()
            unit.status = message.get("STATUS", unit.status)
            for fd in fds:
                self._store(unit, message, fd)
            if "FDSTOREREMOVE" in message:
                unit.unstore(message.get("FDNAME"))

    def _store(self, unit: Unit, message: Mapping[str, str], fd: OwnedFd) -> None:
        """Keeps a descriptor for the next process: a listening socket that replaces one whose file
        was removed, or the one descriptor that a unit may store."""
        name = message.get("FDNAME") if "FDSTORE" in message else None
        if name in unit.sockets:
            with fd, contextlib.suppress(OSError):
                unit.replace_socket(name, fd)
        elif name is not None and unit._stored is None:
            unit._stored = name, fd
        else:
            fd.close()

    async def _watch(self, unit: Unit) -> None:
        """Kills the program if it is not ready in time, or if its pings stop after that."""
        timeouts = unit.timeouts
        with anyio.move_on_after(timeouts.start) as starting:
            await unit.ready.wait()
        if starting.cancelled_caught:
            log.error("%s: not ready after %g s: killed", unit.name, timeouts.start)
        else:
            while (due := unit._pinged + timeouts.watchdog) > anyio.current_time():
                await anyio.sleep_until(due)
            log.error("%s: no watchdog ping for %g s: killed", unit.name, timeouts.watchdog)
            unit._watchdog_bit = True
        unit.signal(signal.SIGABRT)
        await anyio.sleep(_ABORT_SECONDS)
        unit.signal(signal.SIGKILL)


def _pidfd_of(child: int) -> OwnedFd:
    """Raises OSError; the child is killed then, since nothing could watch it."""
    try:
        return OwnedFd(os.pidfd_open(child))
    except OSError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _forget(notify: socket.socket) -> None:
    """Discards the notifications of the last process."""
    with contextlib.suppress(BlockingIOError):
        while True:
            notify.recv(4096)


def _reap(pid: int, pidfd: OwnedFd) -> int:
    """Returns the exit code, negative for a signal."""
    with pidfd:
        # No effect on a process that has ended; one that still runs must not outlive us.
        signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def expect_children() -> None:
    """Must be called in the main thread before a supervisor starts.

    A program that ignores SIGCHLD may have started us. The kernel would then discard the exit codes
    of our children (wait(2)).
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


async def first_of(waits: Mapping[T, Callable[[], Awaitable[object]]]) -> T:
    """Waits for several things at once; returns the key of the first that happens."""
    found: list[T] = []
    async with anyio.create_task_group() as tasks:

        async def wait(key: T, happens: Callable[[], Awaitable[object]]) -> None:
            await happens()
            found.append(key)
            tasks.cancel_scope.cancel()

        for key, happens in waits.items():
            tasks.start_soon(wait, key, happens)
    return found[0]
