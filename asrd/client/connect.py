"""The search for the daemon's socket, and the connection to it."""

import errno
import os
import socket
import stat
from pathlib import Path

from asrd.config import DEFAULT_SOCKET
from asrd.errors import ConnectionLost

SOCKET_NAME = "asrd.sock"
# The pause in seconds before another attempt if the daemon's backlog is full.
BACKLOG_PAUSE = 0.01


def socket_path(named: str | None) -> str:
    """Returns the argument, else ASRD_SOCKET, else the system's socket if this user may use it,
    else that of the user's own `asrd run`."""
    if given := named or os.environ.get("ASRD_SOCKET"):
        return given
    if os.access(DEFAULT_SOCKET, os.W_OK):
        return DEFAULT_SOCKET
    for directory in own_directories():
        path = directory / SOCKET_NAME
        if is_private(directory) and path.is_socket():
            return str(path)
    return _missing_socket()


def _missing_socket() -> str:
    """Returns the path of a daemon that may start later, where no other user can put a socket: the
    system's if its daemon is installed, else one in the user's runtime directory if it exists."""
    if not Path(DEFAULT_SOCKET).parent.exists():
        for directory in own_directories():
            if is_private(directory.parent) and (is_private(directory) or not directory.exists()):
                return str(directory / SOCKET_NAME)
    return DEFAULT_SOCKET


def own_directories() -> list[Path]:
    """Returns the possible directories of this user's `asrd run` socket, the best one first.

    XDG_RUNTIME_DIR is not the only one: the daemon may run in a login session that sets it, and the
    client in a cron job that does not.
    """
    user = os.geteuid()
    runtime = [Path(os.environ.get("XDG_RUNTIME_DIR") or "."), Path(f"/run/user/{user}")]
    found = [base / "asrd" for base in runtime if base.is_absolute() and is_private(base)]
    return [*dict.fromkeys(found), _without_runtime()]


def _without_runtime() -> Path:
    return Path(f"/tmp/asrd-{os.geteuid()}")


def is_private(directory: Path) -> bool:
    """Returns True if only this user (and root) can have put a file there: it is a directory, not
    a link, this user owns it, and no other user may write to it."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    writable_by_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ours = found.st_uid == os.geteuid()
    return stat.S_ISDIR(found.st_mode) and ours and not writable_by_others


def connect(path: str) -> socket.socket | None:
    """Returns a connected non-blocking socket, None if the daemon's backlog is full.

    Raises ConnectionLost; its cause is the OSError, if there is one.
    """
    if _is_taken_over(Path(path).parent):
        raise ConnectionLost(f"not connected: {path} is in a directory of another user")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise ConnectionLost(_sentence(path, error)) from error
    return sock


def _is_taken_over(directory: Path) -> bool:
    """Returns True if the directory in /tmp now belongs to another user: after a cleaner has
    removed it, any user can make it."""
    return directory == _without_runtime() and directory.exists() and not is_private(directory)


def _sentence(path: str, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"there is no daemon: the socket {path} is missing"
        case errno.ECONNREFUSED:
            return f"there is no daemon: nobody listens on {path} (connection refused)"
        case errno.EACCES | errno.EPERM:
            return f"permission denied for {path}: are you in the group asr?"
        case _:
            return f"cannot connect to {path}: {error.strerror or error}"
