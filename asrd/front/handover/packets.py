"""Descriptors and state in a pair of sockets, of which the service manager keeps one end.

The state comes last: without it, the front before this one drained, and nothing counts.
"""

import contextlib
import os
import socket
from collections.abc import Sequence

from asrd.errors import ProtocolError
from asrd.wire import fdsocket
from asrd.wire.fds import OwnedFd

# The kernel passes 253 at once at most (SCM_MAX_FD).
_FDS_MAX = 250
_FDS, _STATE = b"fds", b"state"
_READ = 1 << 26


def send(store: socket.socket, fds: Sequence[int], state: bytes) -> None:
    """Sends copies of all descriptors, and the state in a memfd. Raises OSError."""
    for begin in range(0, len(fds), _FDS_MAX):
        fdsocket.send(store, [_FDS], fds[begin : begin + _FDS_MAX])
    rest = memoryview(state)
    with OwnedFd(os.memfd_create("asrd-handover", os.MFD_CLOEXEC)) as memfd:
        while rest:
            rest = rest[os.write(memfd.fileno(), rest) :]
        fdsocket.send(store, [_STATE], [memfd.fileno()])


def receive(stored: socket.socket) -> tuple[list[OwnedFd], bytes | None]:
    """Returns the descriptors, and the state if it came (empty if it can't be read). The caller
    owns the descriptors. Never raises or waits."""
    fds: list[OwnedFd] = []
    state: bytes | None = None
    buffer = memoryview(bytearray(16))
    stored.setblocking(False)
    with contextlib.suppress(OSError, ProtocolError):
        while state is None:
            count, found = fdsocket.receive_into(stored, buffer, _FDS_MAX)
            if buffer[:count] == _STATE:
                state = _read(found)
            elif count:
                fds += found
            else:
                break
    return fds, state


def _read(found: list[OwnedFd]) -> bytes:
    try:
        return _all_of(found[0].fileno())
    except (OSError, IndexError):
        return b""
    finally:
        for fd in found:
            fd.close()


def _all_of(fd: int) -> bytes:
    """One read takes 2 GiB at most. Raises OSError."""
    found = bytearray()
    while piece := os.pread(fd, _READ, len(found)):
        found += piece
    return bytes(found)
