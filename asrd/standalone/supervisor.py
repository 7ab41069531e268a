"""A small service manager for machines without systemd: as much of the units as asrd needs.

It hands the very same programs their sockets (sd_listen_fds(3)), hears their notifications and
keeps the descriptor that they store (sd_notify(3)), restarts them always, and kills those whose
watchdog pings stop. This is the only place in asrd that starts processes.
"""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from asrd.errors import AsrdError, ConfigError
from asrd.standalone import child
from asrd.systemd import LISTEN_FDS_START
from asrd.wire import fdsocket
from asrd.wire.fds import OwnedFd

log = logging.getLogger(__name__)

# Exit codes after which a unit is started again only when somebody connects (asrd.worker.worker).
EXIT_IDLE, EXIT_CANNOT_LOAD = 77, 78
# Seconds before a restart, doubling while the unit dies before it was ready. None after a crash in
# service: recovery time is what asrd is for.
_RESTART_FIRST, _RESTART_LAST = 0.1, 5.0
# A front that ends so often without ever having been ready never will be.
_HOPELESS_ENDS = 5
# What SIGABRT leaves for a traceback before SIGKILL, as TimeoutAbortSec does.
_ABORT_SECONDS = 1.0

_CAUGHT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE}


@dataclass(frozen=True)
class Timeouts:
    """Seconds: `start` until a program is ready, `watchdog` from one ping to the next after that
    (TimeoutStartSec= and WatchdogSec= in the units)."""

    start: float = 900.0
    watchdog: float = 10.0


@dataclass
class Unit:
    """One program to keep alive; `sockets` are its listening sockets by name.

    `stderr` is a descriptor, if not the supervisor's own; `on_demand` is to
    start it when somebody connects, not before.
    """

    name: str
    argv: list[str]
    sockets: dict[str, socket.socket]
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: Timeouts = Timeouts()
    stderr: int | None = None
    on_demand: bool = False
    pid: int | None = None
    starts: int = 0
    ready: anyio.Event = field(default_factory=anyio.Event)
    stopping: anyio.Event = field(default_factory=anyio.Event)
    status: str = ""
    last_exit: str | None = None
    was_ready: bool = False
    # Why it can't load, in its own words.
    refusal: str | None = None
    early_ends: int = 0
    _pinged: float = 0.0
    # Name and descriptor, as FileDescriptorStoreMax=1 keeps it.
    _stored: tuple[str, OwnedFd] | None = None
    _pidfd: OwnedFd | None = None

    def signal(self, number: int) -> None:
        """To this very process, or to none: a pidfd can't hit a stranger with a recycled pid."""
        if self._pidfd is not None:
            try:
                signal.pidfd_send_signal(self._pidfd.fileno(), number)
            except ProcessLookupError:
                return

    def replace_socket(self, name: str, fd: OwnedFd) -> None:
        """Keep a socket that listens at the same path as the one of that name, and no other: the
        process may have been taken over."""
        if not stat.S_ISSOCK(os.fstat(fd.fileno()).st_mode):
            return
        new = socket.socket(fileno=os.dup(fd.fileno()))
        listens = new.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and new.getsockname() == self.sockets[name].getsockname():
            self.sockets[name], new = new, self.sockets[name]
        new.close()

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
        """SIGTERM to one unit after the other, in their order; SIGKILL to those that need longer
        than `grace` seconds each. Whose turn has not come is kept alive: the front's last jobs need
        their workers."""
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
            # `stop` waits for each unit, also for one that never was.
            self._gone[unit.name].set()
            why = f"{unit.name}: no socket for its notifications: {error.strerror or error}"
            self._give_up(ConfigError(why))
            return
        delay = 0.0
        try:
            while True:
                if unit.on_demand:
                    await self._somebody_connects(unit)
                with anyio.move_on_after(delay):
                    await unit.stopping.wait()
                if unit.stopping.is_set():
                    break
                code = await self._try(unit, notify)
                unit.on_demand = code in (EXIT_IDLE, EXIT_CANNOT_LOAD)
                crashed_early = not unit.ready.is_set()
                self._judge(unit, code)
                delay = min(_RESTART_LAST, max(_RESTART_FIRST, 2 * delay)) if crashed_early else 0
        finally:
            notify.close()
            if unit._stored is not None:
                unit._stored[1].close()
            self._gone[unit.name].set()

    def _judge(self, unit: Unit, code: int | None) -> None:
        """Give up if no client can ever be served.

        All clients depend on the first unit. Of the others any can serve, so it is only hopeless
        if none can load and none ever did.
        """
        front, *others = self.units
        if unit.ready.is_set():
            unit.was_ready = True
        elif code == EXIT_CANNOT_LOAD:
            unit.refusal = unit.status
        if unit is front and not unit.was_ready:
            unit.early_ends += 1
            if unit.early_ends >= _HOPELESS_ENDS:
                why = f"the front never got ready, in {unit.early_ends} tries: it {unit.last_exit}"
                self._give_up(AsrdError(why))
        elif others and all(other.refusal and not other.was_ready for other in others):
            self._give_up(ConfigError(str(others[0].refusal)))

    def _give_up(self, error: AsrdError) -> None:
        self.hopeless_because = self.hopeless_because or error
        self.hopeless.set()

    async def _somebody_connects(self, unit: Unit) -> None:
        async with anyio.create_task_group() as tasks:

            async def watch(sock: socket.socket) -> None:
                await anyio.wait_readable(sock)
                tasks.cancel_scope.cancel()

            for sock in unit.sockets.values():
                tasks.start_soon(watch, sock)
            await unit.stopping.wait()
            tasks.cancel_scope.cancel()

    def _notify_socket(self, unit: Unit) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            # No longer than the path of a worker's own socket, which was bound before this.
            sock.bind(str(self.directory / unit.name))
        except OSError:
            sock.close()
            raise
        return sock

    async def _try(self, unit: Unit, notify: socket.socket) -> int | None:
        """One life of the program; returns its exit code, negative for a signal, None if it could
        not be started."""
        if unit.ready.is_set():
            unit.ready = anyio.Event()
        _forget(notify)
        try:
            unit.pid, pidfd = self._spawn(unit, notify.getsockname())
        except OSError as error:
            log.error("%s: cannot be started: %s", unit.name, error.strerror)
            unit.last_exit = f"could not be started: {error.strerror}"
            return None
        return await self._run(unit, notify, pidfd)

    async def _run(self, unit: Unit, notify: socket.socket, pidfd: OwnedFd) -> int:
        unit.starts += 1
        with pidfd:
            unit._pidfd = pidfd
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._listen, unit, notify)
                    tasks.start_soon(self._watch, unit)
                    await anyio.wait_readable(pidfd)
                    tasks.cancel_scope.cancel()
            finally:
                unit._pidfd = None
                code = await self._reap(unit, pidfd)
        return code

    async def _reap(self, unit: Unit, pidfd: OwnedFd) -> int:
        result = os.waitid(os.P_PIDFD, pidfd.fileno(), os.WEXITED | os.WNOHANG)
        if result is None:
            # Cancelled in the middle: the child must not outlive us.
            signal.pidfd_send_signal(pidfd.fileno(), signal.SIGKILL)
            result = os.waitid(os.P_PIDFD, pidfd.fileno(), os.WEXITED)
        unit.pid = None
        if result is None:
            raise ChildProcessError(f"{unit.name} was reaped by somebody else")
        code, unit.last_exit = _describe(result)
        if not unit.stopping.is_set():
            log.warning("%s: %s", unit.name, unit.last_exit)
        return code

    def _spawn(self, unit: Unit, notify_path: str) -> tuple[int, OwnedFd]:
        """The new process: its pid and a pidfd. Raises OSError."""
        passed = {name: sock.fileno() for name, sock in unit.sockets.items()}
        if unit._stored is not None:
            passed[unit._stored[0]] = unit._stored[1].fileno()
        environment = {
            **os.environ,
            **unit.environment,
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(passed),
            "NOTIFY_SOCKET": notify_path,
            "WATCHDOG_USEC": str(int(unit.patience.watchdog * 1_000_000)),
            "ASRD_SUPERVISED": str(os.getpid()),
            "ASRD_LAST_EXIT": unit.last_exit or "",
            child.IMPORT_PATH: import_path(),
        }
        environment.pop("WATCHDOG_PID", None)
        environment.pop("LISTEN_PID", None)
        # First out of the way of the numbers that they are to have.
        above = LISTEN_FDS_START + len(passed)
        copies = [OwnedFd(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)) for fd in passed.values()]
        try:
            pid = os.posix_spawn(
                unit.argv[0],
                unit.argv,
                environment,
                file_actions=[
                    *(
                        (os.POSIX_SPAWN_DUP2, copy.fileno(), LISTEN_FDS_START + index)
                        for index, copy in enumerate(copies)
                    ),
                    (os.POSIX_SPAWN_DUP2, 2 if unit.stderr is None else unit.stderr, 2),
                ],
                # A group of its own: the terminal's Ctrl-C is for the supervisor alone.
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
            # Not socket.recv_fds: it drops its flags, and what is not close-on-exec would go on to
            # every process that is started from here on.
            count, fds = fdsocket.receive_into(notify, buffer)
            told = dict(line.partition("=")[::2] for line in _lines(bytes(buffer[:count])))
            if "READY" in told or "WATCHDOG" in told:
                unit._pinged = anyio.current_time()
            if "READY" in told:
                unit.ready.set()
            unit.status = told.get("STATUS", unit.status)
            for fd in fds:
                self._store(unit, told, fd)

    def _store(self, unit: Unit, told: Mapping[str, str], fd: OwnedFd) -> None:
        """Keep a descriptor for the next process: a listening socket in the place of the one of
        that name, which was removed from the file system, or the one that may be stored."""
        name = told.get("FDNAME") if "FDSTORE" in told else None
        if name in unit.sockets:
            with fd, contextlib.suppress(OSError):
                unit.replace_socket(name, fd)
        elif name is not None and unit._stored is None:
            unit._stored = name, fd
        else:
            fd.close()

    async def _watch(self, unit: Unit) -> None:
        """Kill the program once its pings stop; they count, as in systemd, from when it is ready,
        for which it has a time of its own."""
        patience = unit.patience
        with anyio.move_on_after(patience.start) as starting:
            await unit.ready.wait()
        if starting.cancelled_caught:
            log.error("%s: not ready after %g s: killed", unit.name, patience.start)
        else:
            while (due := unit._pinged + patience.watchdog) > anyio.current_time():
                await anyio.sleep_until(due)
            log.error("%s: no watchdog ping for %g s: killed", unit.name, patience.watchdog)
        unit.signal(signal.SIGABRT)
        await anyio.sleep(_ABORT_SECONDS)
        unit.signal(signal.SIGKILL)


def _pidfd_of(child: int) -> OwnedFd:
    """Raises OSError, and leaves no child of which nothing could be heard."""
    try:
        return OwnedFd(os.pidfd_open(child))
    except OSError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def _forget(notify: socket.socket) -> None:
    """What the last process said at its end is no word of the next one's."""
    with contextlib.suppress(BlockingIOError):
        while True:
            notify.recv(4096)


def _lines(text: bytes) -> list[str]:
    return text.decode("utf-8", "replace").splitlines()


def _describe(result: os.waitid_result) -> tuple[int, str]:
    if result.si_code == os.CLD_EXITED:
        return result.si_status, f"exited with {result.si_status}"
    try:
        name = signal.Signals(result.si_status).name
    except ValueError:
        name = f"signal {result.si_status}"
    return -result.si_status, f"killed by {name}"


def program(module: str, *arguments: str) -> list[str]:
    """The command line that runs `main` of one of asrd's modules with this very interpreter.

    -E and -P: nothing is imported because of PYTHONPATH and the like, nor from the working
    directory. See asrd.standalone.child.
    """
    flags = ["-s"] * sys.flags.no_user_site + ["-S"] * sys.flags.no_site
    flags += ["-B"] * sys.flags.dont_write_bytecode
    flags += [f"-W{option}" for option in sys.warnoptions]
    script = str(Path(child.__file__).absolute())
    return [sys.executable, "-E", "-P", *flags, script, module, *arguments]


def import_path() -> str:
    """Returns our own import path for the children, without the working directory and what is
    relative to it. (asrd itself needs no entry.)"""
    absolute = (entry for entry in sys.path if entry.startswith("/"))
    return os.pathsep.join(entry for entry in absolute if not _is_here(entry))


def _is_here(entry: str) -> bool:
    try:
        return Path(entry).samefile(".")
    except OSError:
        return False
