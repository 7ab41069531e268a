"""Bytes and file descriptors over a Unix stream socket: sendmsg and recvmsg.

The asynchronous and the blocking side share these functions on the raw socket: anyio's own
`receive_fds` ignores MSG_CTRUNC, and its `receive` drops descriptors silently (anyio 4.16).
"""

import array
import errno
import socket
import struct
from collections.abc import Sequence

from asrd.errors import ProtocolError
from asrd.wire.fds import OwnedFd
from asrd.wire.frames import MAX_FDS
from asrd.wire.peer import Peer

# One read empties a Unix socket of the default size (net.core.wmem_default, 208 KiB).
READ_SIZE = 256 * 1024
_FD_SIZE = array.array("i").itemsize
# Errors of this machine, not of the peer.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_UCRED = struct.Struct("iII")
# The user id of a peer without credentials: (uid_t) -1.
_NO_UID = 0xFFFF_FFFF
# One subscriber has the addresses of a /64, and can use any of them.
_IPV6_PREFIX = 64


def peer_of(sock: socket.socket, address: object) -> Peer:
    """Returns the peer of a connection that `accept` returned with this address.

    Only AF_UNIX has credentials (SO_PEERCRED, unix(7)); for other sockets the kernel reports pid 0
    and uid -1.
    """
    if sock.family == socket.AF_UNIX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        if uid != _NO_UID:
            return Peer(pid, uid, gid)
    return Peer(None, None, None, _shown(address))


def _shown(address: object) -> str:
    """Returns the part of a socket address that quotas count by: all ports of one host."""
    host = address[0] if isinstance(address, tuple) and address else "unknown"
    if not isinstance(host, str):
        return str(host)
    # Imported here: most processes never need it.
    import ipaddress

    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    if found.is_loopback:
        # Every program here may have any of them.
        return "127.0.0.1"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))


def receive_into(
    sock: socket.socket, buffer: memoryview, max_fds: int = MAX_FDS
) -> tuple[int, list[OwnedFd]]:
    """Calls recvmsg once. Returns the number of bytes (0 at the end) and the descriptors.

    Raises ProtocolError for more than `max_fds` descriptors, of which the kernel drops the rest,
    OSError (EMFILE) if this process can have no more, BlockingIOError.
    """
    room = socket.CMSG_SPACE(max_fds * _FD_SIZE)
    count, ancillary, flags, _ = sock.recvmsg_into([buffer], room, socket.MSG_CMSG_CLOEXEC)
    fds = [OwnedFd(fd) for fd in _rights(ancillary)]
    if flags & socket.MSG_CTRUNC:
        for fd in fds:
            fd.close()
        if len(fds) < max_fds:
            raise OSError(errno.EMFILE, "no descriptor number is left for a received one")
        raise ProtocolError(f"fds: more than {max_fds} descriptors arrived at once")
    return count, fds


def _rights(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def send(sock: socket.socket, buffers: Sequence[bytes | memoryview], fds: Sequence[int]) -> int:
    """Calls sendmsg once. Returns the number of bytes sent; the first one carries the descriptors.

    Raises BlockingIOError, OSError (BrokenPipeError if the peer is gone).
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg(buffers, ancillary, socket.MSG_NOSIGNAL)
