"""The only sendmsg and recvmsg: bytes and file descriptors over a Unix stream socket.

Plain functions on the raw socket, shared by the async and the blocking side: anyio's own
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

# As much as a Unix socket holds by default (net.core.wmem_default, 208 KiB): one read empties it.
READ_SIZE = 256 * 1024
_FD_SIZE = array.array("i").itemsize
# What the kernel says when this machine, not the peer, is at fault.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_UCRED = struct.Struct("iII")
# The user id of a peer that left no credentials: (uid_t) -1.
_NO_UID = 0xFFFF_FFFF
# The bits of an IPv6 address that belong to one subscriber: the rest is theirs to vary.
_IPV6_PREFIX = 64


def peer_of(sock: socket.socket, address: object) -> Peer:
    """The peer of a connection that `accept` returned with this address. Only AF_UNIX has
    credentials (SO_PEERCRED, unix(7)); of other sockets the kernel says pid 0 and uid -1."""
    if sock.family == socket.AF_UNIX:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(raw)
        if uid != _NO_UID:
            return Peer(pid, uid, gid)
    return Peer(None, None, None, _shown(address))


def _shown(address: object) -> str:
    """The part of a socket address that its quotas count by: all ports of one host."""
    host = address[0] if isinstance(address, tuple) and address else "unknown"
    if not isinstance(host, str):
        return str(host)
    # Imported here: most daemons never need it.
    import ipaddress

    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))


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
