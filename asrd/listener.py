"""A listening socket in the file system: bound where nobody listens, bound again if it is removed,
and removed at the end unless it is another daemon's. Or one of TCP, for strangers.

A daemon that drains may outlive the start of the next one at the same path, and two may start at
the same moment: each looks, binds and removes only while it holds `PATH.lock`.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asrd.errors import ConfigError
from asrd.wire.fds import OwnedFd

# Above the busiest burst, so that a connection waits and is not refused (as in the units).
BACKLOG = 4096
# The mode of a socket for users with access, and of one for everybody.
MAIN_MODE, PUBLIC_MODE = 0o660, 0o666
# Binding takes no longer.
_LOCK_SECONDS = 5.0
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:]*)):(?P<port>[0-9]{1,5})")
_PORT_MAX = 65535
# Seconds of silence after which the kernel asks a peer of TCP whether it is there, seconds between
# two such questions, their number, and milliseconds that sent bytes may stay unacknowledged.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 60,
    socket.TCP_KEEPINTVL: 15,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 120_000,
}
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def bind(path: str, mode: int = MAIN_MODE, patience: float = _LOCK_SECONDS) -> socket.socket:
    """Listens at `path`, where a dead daemon may have left its socket. `patience`: seconds to wait
    for another program that binds at this moment.

    Raises ConfigError if a daemon listens there already, or the path can't be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked(path, patience):
            _remove_stale(path)
            listener.bind(path)
            Path(path).chmod(mode)
            listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from None
    except ConfigError:
        listener.close()
        raise
    return listener


def unbind(path: str) -> None:
    """Removes the socket of a closed listener; another daemon's stays."""
    with contextlib.suppress(OSError, ConfigError), _locked(path):
        _remove_stale(path)


def bind_tcp(address: str) -> socket.socket:
    """Listens at HOST:PORT or [IPv6]:PORT; port 0: the system chooses one. Without HOST it is all
    addresses of this machine. Raises ConfigError."""
    match = _HOST_PORT.fullmatch(address)
    if match is None or int(match["port"]) > _PORT_MAX:
        raise ConfigError(f"cannot listen at {address!r}: give HOST:PORT or [IPv6]:PORT")
    host, port = match["v6"] or match["host"], int(match["port"])
    kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(host or None, port, type=kind, flags=flags)
        # The socket for all addresses of IPv6 takes clients of IPv4, too.
        both = not host and socket.has_dualstack_ipv6()
        family, place = (socket.AF_INET6, ("", port)) if both else (found[0][0], found[0][4])
        return socket.create_server(place, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        # create_server adds the address once more.
        reason = (error.strerror or str(error)).partition(" (while ")[0]
        if error.errno == errno.EAFNOSUPPORT:
            # The sandbox of asrd.service.
            reason += "; under systemd: sudo systemctl enable asrd-wyoming.socket"
    except ValueError as error:
        # The host is no name at all.
        reason = str(error)
    raise ConfigError(f"cannot listen at {address}: {reason}")


def shown(sock: socket.socket) -> str:
    """Returns the address of a listener, as `127.0.0.1:10300`, `[::1]:10300` or a path."""
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return str(name)
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def watch_peer(sock: socket.socket) -> None:
    """Makes the kernel end a connection over TCP whose peer is gone: a host that lost its power
    sends nothing, and would count forever."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # An error means that the connection has ended.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


class Place:
    """The place of a listening socket in the file system. A cleaner of temporary files, or a user,
    may remove the socket while the daemon runs; no client could connect after that."""

    def __init__(self, path: str) -> None:
        self._path = path
        # If nobody answers, an earlier process bound the path again and died: the socket that we
        # were given is no longer in the file system.
        self._found = _identity(path) if _answers(path) else None
        self._directory = _identity(str(Path(path).parent))

    @classmethod
    def of(cls, sock: socket.socket) -> "Place | None":
        """Returns None for a socket without a path (TCP, or an abstract address)."""
        name = sock.getsockname() if sock.family == socket.AF_UNIX else ""
        return cls(name) if isinstance(name, str) and name.startswith("/") else None

    def is_lost(self) -> bool:
        """Returns True if our socket is gone, or another is in its place."""
        found = _identity(self._path)
        return found is None or self._found is None or not os.path.samestat(found, self._found)

    def bind_again(self, mode: int) -> socket.socket:
        """Listens there again, and makes the directory again if it is gone. Never waits for the
        lock. Raises ConfigError."""
        directory, before = Path(self._path).parent, self._directory
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700 if before is None else stat.S_IMODE(before.st_mode))
        if before is not None and not _is_as_safe(_identity(str(directory)), before):
            text = f"cannot listen at {self._path}: {directory} is no longer ours alone"
            raise ConfigError(text)
        listener = bind(self._path, mode, patience=0)
        self._found = _identity(self._path)
        return listener


def _is_as_safe(now: os.stat_result | None, before: os.stat_result) -> bool:
    """Returns True if the directory is as safe as before: in /tmp, another user may have made it
    again, and could put a socket there."""
    if now is None:
        # Binding will fail, with the reason.
        return True
    same = now.st_uid == before.st_uid and stat.S_IFMT(now.st_mode) == stat.S_IFMT(before.st_mode)
    return same and not now.st_mode & ~before.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            # A full backlog belongs to a daemon; without permission we can't know.
            return not isinstance(error, ConnectionRefusedError)
    return True


def _identity(path: str) -> os.stat_result | None:
    try:
        return Path(path).lstat()
    except OSError:
        return None


@contextmanager
def _locked(path: str, patience: float = _LOCK_SECONDS) -> Iterator[None]:
    """Raises ConfigError if another program keeps the lock, OSError."""
    lock = f"{path}.lock"
    deadline = time.monotonic() + patience
    while True:
        with OwnedFd(os.open(lock, _LOCK_FLAGS, 0o600)) as fd:
            if _is_taken(fd.fileno(), lock):
                try:
                    yield
                finally:
                    Path(lock).unlink()
                return
        if time.monotonic() > deadline:
            raise ConfigError(f"cannot listen at {path}: another program holds {lock}")
        time.sleep(0.01)


def _is_taken(fd: int, lock: str) -> bool:
    """Returns True if we hold the lock, and its file is still the one that others open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), Path(lock).stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ConfigError(f"cannot listen at {path}: there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise ConfigError(f"cannot listen at {path}: another daemon listens there")
