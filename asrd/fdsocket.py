"""The only sendmsg and recvmsg: bytes and file descriptors over a Unix stream socket.

Plain functions on the raw socket, shared by the async and the blocking side: anyio's own
`receive_fds` ignores MSG_CTRUNC, and its `receive` drops descriptors silently (anyio 4.16).
"""

import array
import errno
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from asrd.errors import ProtocolError
from asrd.ownedfd import OwnedFd
from asrd.wire import MAX_FDS

# As much as a Unix socket holds by default (net.core.wmem_default, 208 KiB): one read empties it.
READ_SIZE = 256 * 1024
_FD_SIZE = array.array("i").itemsize
# What the kernel says when this machine, not the peer, is at fault.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
# What the kernel says of a user without a number in our namespace (user_namespaces(7)).
_OVERFLOW_UID = 65534
_UCRED = struct.Struct("iII")


class Peer(NamedTuple):
    """Who connected (SO_PEERCRED, see unix(7)); the kernel vouches for it."""

    pid: int
    uid: int
    gid: int

    def may_see(self, uid: int) -> bool:
        """Whether what belongs to that user is this peer's business. Who has no number here
        (another user namespace) shares one with others, and is nobody's friend."""
        return self.uid == 0 or (self.uid == uid and uid != _OVERFLOW_UID)


# Who reads the log may know everything.
ROOT = Peer(0, 0, 0)


def peer_of(sock: socket.socket) -> Peer:
    return Peer(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def receive_into(
    sock: socket.socket, buffer: memoryview, max_fds: int = MAX_FDS
) -> tuple[int, list[OwnedFd]]:
    """One recvmsg: how many bytes came (0 at the end), and the descriptors that came with them.
    Of more than `max_fds` the kernel drops the rest, before they are ours.

    Raises ProtocolError if it were too many descriptors, OSError (EMFILE) if this process can take
    no more, BlockingIOError.
    """
    room = socket.CMSG_SPACE(max_fds * _FD_SIZE)
    count, ancillary, flags, _ = sock.recvmsg_into([buffer], room, socket.MSG_CMSG_CLOEXEC)
    fds = [OwnedFd(fd) for fd in _rights(ancillary)]
    if flags & socket.MSG_CTRUNC:
        for fd in fds:
            fd.close()
        if len(fds) < max_fds:
            raise OSError(errno.EMFILE, "no descriptor is left for one that came")
        raise ProtocolError(f"fds: more than {max_fds} descriptors came at once")
    return count, fds


def _rights(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def send(sock: socket.socket, buffers: Sequence[bytes | memoryview], fds: Sequence[int]) -> int:
    """One sendmsg: how many bytes went. The descriptors go with the first of them.

    Raises BlockingIOError, OSError (BrokenPipeError once the peer is gone).
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg(buffers, ancillary, socket.MSG_NOSIGNAL)
