"""Where the daemon's socket is, and how to say that nobody answers there."""

import errno
import os
import socket

from asrd.config import DEFAULT_SOCKET
from asrd.errors import ConnectionLost

# How soon to try again when the daemon's backlog is full, in seconds.
BACKLOG_PAUSE = 0.01


def socket_path(named: str | None) -> str:
    """The argument, else ASRD_SOCKET, else /run/asrd/asrd.sock."""
    return named or os.environ.get("ASRD_SOCKET") or DEFAULT_SOCKET


def connect(path: str) -> socket.socket | None:
    """A connected non-blocking socket; None if the daemon's backlog is full for the moment.

    Raises ConnectionLost, whose cause is the OSError.
    """
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
