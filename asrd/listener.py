"""A listening socket in the file system: made where nobody listens, made again where somebody
removed it, and removed at the end unless it is another's.

A daemon that drains may outlive the start of the next one at the same path, and two may start at
the same moment: each looks, binds and removes only while it holds `PATH.lock`.
"""

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asrd.errors import ConfigError
from asrd.wire.fds import OwnedFd

# Above the busiest burst: a connection waits here, it is not refused (the units say the same).
BACKLOG = 4096
# Of a socket for those with access, and of one for everybody.
MAIN_MODE, PUBLIC_MODE = 0o660, 0o666
# Nobody holds the lock for longer than it takes to bind.
_LOCK_SECONDS = 5.0
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def bind(path: str, mode: int = MAIN_MODE, patience: float = _LOCK_SECONDS) -> socket.socket:
    """Listen at `path`, where a dead daemon may have left its socket. `patience`: seconds to wait
    for another program that does the same at this moment.

    Raises ConfigError if somebody listens there already, or the path can't be used.
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
    """Remove the socket of a listener that is closed; another daemon's stays."""
    try:
        with _locked(path):
            _remove_stale(path)
    except (OSError, ConfigError):
        return


class Place:
    """Where a listening socket stands in the file system. A cleaner of temporary files, or a user,
    may remove it while the daemon runs, and then nobody can connect any more."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Where nobody answers, a process before this one listened again, and died: what we were
        # given has no place in the file system any more.
        self._found = _identity(path) if _answers(path) else None
        self._directory = _identity(str(Path(path).parent))

    @classmethod
    def of(cls, sock: socket.socket) -> "Place | None":
        """None for a socket without a path (TCP, or an abstract address)."""
        name = sock.getsockname() if sock.family == socket.AF_UNIX else ""
        return cls(name) if isinstance(name, str) and name.startswith("/") else None

    def is_lost(self) -> bool:
        """True if our socket is gone, or another stands in its place."""
        found = _identity(self._path)
        return found is None or self._found is None or not os.path.samestat(found, self._found)

    def bind_again(self, mode: int) -> socket.socket:
        """Listen there once more; the directory is made again, too. Never waits for another
        program that holds the lock. Raises ConfigError."""
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
    """True if the directory is as safe as before: in /tmp, another user may have made it in the
    meantime, and could put a socket of their own there."""
    if now is None:
        # Then listening fails, and says why.
        return True
    same = now.st_uid == before.st_uid and stat.S_IFMT(now.st_mode) == stat.S_IFMT(before.st_mode)
    return same and not now.st_mode & ~before.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            # A full backlog is somebody's, and who may not connect can't tell.
            return not isinstance(error, ConnectionRefusedError)
    return True


def _identity(path: str) -> os.stat_result | None:
    try:
        return Path(path).lstat()
    except OSError:
        return None


@contextmanager
def _locked(path: str, patience: float = _LOCK_SECONDS) -> Iterator[None]:
    """Raises ConfigError if another holds the lock and does not let go, OSError."""
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
    """Whether the lock is ours, and still the one that others look at."""
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
