"""`asrd serve`, the daemon as systemd starts it: listeners, signals, the watchdog."""

import argparse
import contextlib
import itertools
import logging
import math
import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TypeAlias

import anyio

from asrd import systemd
from asrd.config import config_path, load_front
from asrd.errors import ConfigError
from asrd.front import memory_bounds
from asrd.front.client_connections import ClientConnections
from asrd.front.doors import MAIN, STATUS, WYOMING, door_of
from asrd.front.front import Front
from asrd.front.handover import packets
from asrd.front.handover.giving import finish_short_jobs, give
from asrd.front.handover.taking import start_jobs, take, turn_away
from asrd.front.refusing import refuse
from asrd.front.reporting import snapshot
from asrd.front.scheduling.scheduler import SHUTTING_DOWN
from asrd.journal import setup_logging
from asrd.listener import (
    MAIN_MODE,
    PUBLIC_MODE,
    Place,
    bind,
    bind_tcp,
    shown,
    unbind,
)
from asrd.settings import FrontSettings
from asrd.wire.fdsocket import READ_SIZE

log = logging.getLogger(__name__)

# By the names of their doors.
_Listeners: TypeAlias = dict[str, list[socket.socket]]

# Seconds between two looks for workers, and between two STATUS lines.
_HOUSEKEEPING_SECONDS = 0.5
# Seconds between two checks that the sockets are still in the file system.
_MISSING_SECONDS = 1.0
# Seconds for clients to read their last answers when the daemon stops.
_FAREWELL_SECONDS = 2.0


class Server:
    """Owns the listeners, by the names of their doors."""

    def __init__(
        self,
        settings: FrontSettings,
        listeners: dict[str, list[socket.socket]],
        handed_over: Sequence[socket.socket],
        rehearse: Callable[[], object],
    ) -> None:
        """`handed_over`: what the front before this one stored. `rehearse` does what the next one
        will do at its start; raises ConfigError."""
        self.settings = settings
        self._buffer = memoryview(bytearray(READ_SIZE))
        self.front = Front(settings, self._buffer)
        self._listeners = {
            listener: self.front.doors[name]
            for name, passed in listeners.items()
            for listener in passed
        }
        self._handed_over, self._rehearse = handed_over, rehearse
        self._notifier = systemd.Notifier()
        self._drain_ends = math.inf
        self._clients: ClientConnections

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then lets accepted jobs finish; or until RESTART_SIGNAL,
        then hands over to the next front."""
        async with anyio.create_task_group() as tasks:
            self._clients = ClientConnections(self.front, tasks, self._buffer)
            # First, since no signal may end what was taken over; during a drain, a second one may.
            with anyio.open_signal_receiver(*systemd.FRONT_SIGNALS) as signals:
                self._take_over()
                self.front.start(tasks)
                tasks.start_soon(self._housekeeping)
                async with anyio.create_task_group() as accepting:
                    for listener in list(self._listeners):
                        accepting.start_soon(self._keep_listening, listener)
                    if self._handed_over:
                        await start_jobs(self.front)
                    self._notifier.ready()
                    log.info(
                        "serving; all clients together can use %d MiB, and %d MiB for recordings",
                        memory_bounds.memory(self.settings) >> 20,
                        memory_bounds.recordings(self.settings) >> 20,
                    )
                    number = await anext(aiter(signals))
                    log.info("%s", signal.Signals(number).name)
                    if number == systemd.RESTART_SIGNAL:
                        await finish_short_jobs(self.front)
                    accepting.cancel_scope.cancel()
                if number == systemd.RESTART_SIGNAL:
                    # The tasks of clients that were accepted last must begin before it.
                    await anyio.sleep(0)
                    self._hand_over()
                    # That was impossible.
                    self.front.go_on()
            await self._stop()
            tasks.cancel_scope.cancel()
        self._notifier.close()

    def _take_over(self) -> None:
        """Goes on with the clients and jobs of the front before this one."""
        for stored in self._handed_over:
            with stored:
                fds, state = packets.receive(stored)
            if state is None:
                # It could not store everything, and drained.
                for fd in fds:
                    fd.close()
                continue
            now = anyio.current_time()
            for session, connection in take(self.front, self._clients.connect, fds, state, now):
                self._clients.serve(session, connection)
        if self._handed_over:
            self._notifier.unstore(systemd.HANDOVER)

    def _hand_over(self) -> None:
        """Ends the process once the next front has everything; returns if that is impossible."""
        try:
            self._rehearse()
        except ConfigError as problem:
            log.error("no hand-over, since the next front could not start: %s", problem)
            return
        store = self._notifier.store_socket(systemd.HANDOVER)
        if store is None:
            log.info("no hand-over: the service manager keeps no descriptors, or none are left")
            return
        with store:
            if give(self.front, store):
                # At once: what a task read from a client from now on would be lost.
                os._exit(0)

    async def _stop(self) -> None:
        # Clients that connect from now on wait in systemd's socket for the next daemon.
        for listener in self._listeners:
            listener.close()
        log.info("draining: the front ends when every accepted job has its answer")
        self._notifier.stopping()
        self._drain_ends = anyio.current_time() + self.settings.drain_seconds
        with anyio.CancelScope(deadline=self._drain_ends):
            await self.front.drain()
        for job in self.front.scheduler.unfinished():
            self.front.cancel(job.request, SHUTTING_DOWN)
        await self._clients.flush(_FAREWELL_SECONDS)

    async def _housekeeping(self) -> None:
        """Finds workers, shows the status line, pings the watchdog: the event loop is alive."""
        pause = min(_HOUSEKEEPING_SECONDS, systemd.watchdog_seconds() or _HOUSEKEEPING_SECONDS)
        while True:
            self.front.find_workers()
            line = snapshot.status_line(self.front, anyio.current_time(), self._drain_ends)
            self._notifier.status(line)
            self._notifier.watchdog()
            await anyio.sleep(pause)

    async def _keep_listening(self, listener: socket.socket) -> None:
        """Accepts clients, and listens again if the socket is removed from the file system."""
        door, place = self._listeners[listener], Place.of(listener)
        if place is None:
            await self._clients.accept(listener, door)
            return
        while True:
            async with anyio.create_task_group() as accepting:
                accepting.start_soon(self._clients.accept, listener, door)
                new = await _made_again(place, door.mode)
                accepting.cancel_scope.cancel()
            del self._listeners[listener]
            listener.close()
            listener = new
            self._listeners[listener] = door
            # For the next front, instead of one that was lost earlier.
            with contextlib.suppress(OSError):
                self._notifier.unstore(door.name)
                self._notifier.store(door.name, listener.fileno())


async def _made_again(place: Place, mode: int) -> socket.socket:
    """Waits until the socket is gone from its place. Returns one that listens there instead."""
    logged = ""
    while True:
        await anyio.sleep(_MISSING_SECONDS)
        if not place.is_lost():
            continue
        try:
            listener = place.bind_again(mode)
        except ConfigError as problem:
            if str(problem) != logged:
                log.error("the socket was removed, so no client can connect: %s", problem)
            logged = str(problem)
        else:
            log.warning("the socket was removed: listening at %s again", listener.getsockname())
            return listener


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="the settings file (asrd.toml)")
    parser.add_argument(
        "--socket", metavar="PATH", help="where to listen, if not started by systemd"
    )


def _allow_descriptors(settings: FrontSettings) -> None:
    """Raises the limit of open files to its maximum: shells start with 1,024, for select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = memory_bounds.descriptors(settings)
    if needed > hard:
        log.warning(
            "at most %d descriptors can be open, and clients may need %d: some may get `busy`",
            hard,
            needed,
        )


def serve(args: argparse.Namespace) -> int:
    """Raises ConfigError."""
    systemd.die_with_supervisor()
    setup_logging("info", "asrd")
    passed = systemd.listen_sockets()
    handed_over = passed.pop(systemd.HANDOVER, [])
    passed = _by_doors(passed)

    def load_settings() -> FrontSettings:
        return load_front(config_path(args.config), {"socket": args.socket})

    def prepare() -> tuple[FrontSettings, _Listeners, list[str]]:
        settings = load_settings()
        setup_logging(settings.log_level, "asrd")
        return settings, *_listeners(settings, passed)

    try:
        found: tuple[FrontSettings, _Listeners, list[str]] | None = prepare()
    except ConfigError as problem:
        turn_away(handed_over)
        # Started by hand, it ends: nobody waits for it.
        if not passed:
            raise
        found = refuse(passed, str(problem), prepare)
    settings, listeners, bound = found or (None, passed, [])

    def rehearse() -> None:
        made, paths = _listeners(load_settings(), listeners)
        _close(made, listeners, paths)

    try:
        if settings is not None:
            _allow_descriptors(settings)
            for sock in listeners.get(WYOMING, ()):
                log.info("Wyoming clients are served at %s, without authentication", shown(sock))
            anyio.run(Server(settings, listeners, handed_over, rehearse).run)
    finally:
        for listener in itertools.chain(*listeners.values()):
            listener.close()
        for path in bound:
            unbind(path)
    return 0


def _by_doors(passed: dict[str, list[socket.socket]]) -> _Listeners:
    """Returns the listeners that systemd or `asrd run` has passed in, by their doors' names."""
    found: _Listeners = {}
    for name, sockets in passed.items():
        for sock in sockets:
            door = door_of(sock, name)
            if door is None:
                log.warning("a socket named %r was passed in: it is not used", name)
                sock.close()
            else:
                found.setdefault(door, []).append(sock)
    return found


def _listeners(settings: FrontSettings, passed: _Listeners) -> tuple[_Listeners, list[str]]:
    """Returns all listeners, and the paths of those that were not passed in. Raises ConfigError."""
    found = dict(passed)
    bound: list[str] = []
    try:
        # First, as another program may have the port: nothing is left behind then.
        if settings.wyoming and WYOMING not in found:
            found[WYOMING] = [bind_tcp(settings.wyoming)]
        for name, path, mode in (
            (MAIN, settings.socket, MAIN_MODE),
            (STATUS, settings.status_socket, PUBLIC_MODE),
        ):
            if path and name not in found:
                found[name] = [bind(path, mode)]
                bound.append(path)
    except ConfigError:
        _close(found, passed, bound)
        raise
    return found, bound


def _close(found: _Listeners, passed: _Listeners, bound: list[str]) -> None:
    """Closes the listeners that were not passed in."""
    for name in found.keys() - passed.keys():
        found[name][0].close()
    for path in bound:
        unbind(path)
