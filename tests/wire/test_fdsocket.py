"""Bytes and descriptors over real sockets."""

import array
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from asrd.errors import ProtocolError
from asrd.wire import fdsocket
from asrd.wire.frames import MAX_FDS
from asrd.wire.peer import Peer

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def buffer() -> memoryview:
    return memoryview(bytearray(64))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_descriptors_arrive_in_order_and_close_on_exec(pair: Pair, buffer: memoryview) -> None:
    ours, theirs = pair
    sent = [os.memfd_create(f"number {index}") for index in range(MAX_FDS)]
    assert fdsocket.send(ours, [b"one", b"two"], sent) == 6
    length, came = fdsocket.receive_into(theirs, buffer)
    assert (bytes(buffer[:length]), len(came)) == (b"onetwo", MAX_FDS)
    for mine, its in zip(sent, came, strict=True):
        assert os.path.samestat(os.fstat(mine), os.fstat(its.fileno()))
        assert not os.get_inheritable(its.fileno())
        its.close()
        os.close(mine)


def test_too_many_descriptors_are_an_error_without_a_leak(pair: Pair, buffer: memoryview) -> None:
    """The kernel drops the rest and reports it only by MSG_CTRUNC."""
    ours, theirs = pair
    with open("/dev/null", "rb") as null:
        before = open_files()
        fdsocket.send(ours, [b"x"], [null.fileno()] * (MAX_FDS + 1))
        with pytest.raises(ProtocolError, match="fds: more than 4 descriptors arrived at once"):
            fdsocket.receive_into(theirs, buffer)
        assert open_files() == before


def test_descriptors_arrive_with_the_bytes_of_their_send(pair: Pair, buffer: memoryview) -> None:
    """The third rule of frames.Decoder depends on it."""
    ours, theirs = pair
    with open("/dev/null", "rb") as null:
        fdsocket.send(ours, [b"before"], ())
        fdsocket.send(ours, [b"with"], [null.fileno()])
        fdsocket.send(ours, [b"after"], ())
    read = b""
    while len(read) < len(b"beforewithafter"):
        length, came = fdsocket.receive_into(theirs, buffer)
        read += bytes(buffer[:length])
        for fd in came:
            assert b"w" in read
            assert b"a" not in read
            fd.close()
    assert read == b"beforewithafter"


def test_empty_or_full_socket_raises_without_waiting(pair: Pair, buffer: memoryview) -> None:
    ours, theirs = pair
    for one in pair:
        one.setblocking(False)
    with pytest.raises(BlockingIOError):
        fdsocket.receive_into(theirs, buffer)
    with pytest.raises(BlockingIOError):
        while True:
            fdsocket.send(theirs, [b"x" * 65536], ())
    theirs.close()
    with pytest.raises(BrokenPipeError):
        fdsocket.send(ours, [b"x"], ())


def test_other_ancillary_data_is_ignored(pair: Pair, buffer: memoryview) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ours.sendall(b"x")
    assert fdsocket.receive_into(theirs, buffer) == (1, [])
    ours.close()
    assert fdsocket.receive_into(theirs, buffer) == (0, [])


def test_kernel_reports_user_and_process_of_the_peer(pair: Pair) -> None:
    peer = fdsocket.peer_of(pair[0], "")
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


class Accepted:
    """A socket for which the kernel reports these credentials."""

    def __init__(self, family: socket.AddressFamily, pid: int, uid: int, gid: int) -> None:
        self.family = family
        self._credentials = struct.pack("iII", pid, uid, gid)

    def getsockopt(self, *_: int) -> bytes:
        return self._credentials


def peer_of(made: Accepted, address: object = "") -> Peer:
    return fdsocket.peer_of(made, address)  # type: ignore[arg-type]


def test_unix_peer_has_a_32_bit_uid_or_no_credentials() -> None:
    peer = peer_of(Accepted(socket.AF_UNIX, 7, 4_294_967_294, 4_000_000_000))
    assert (peer.pid, peer.uid, peer.gid) == (7, 4_294_967_294, 4_000_000_000)
    peer = peer_of(Accepted(socket.AF_UNIX, 0, 0xFFFF_FFFF, 0xFFFF_FFFF))
    assert (peer.pid, peer.uid, peer.gid, peer.user) == (None, None, None, "address unknown")


@pytest.mark.parametrize(
    ("family", "address", "shown"),
    [
        (socket.AF_INET, ("192.0.2.1", 4711), "192.0.2.1"),
        (socket.AF_INET6, ("::ffff:192.0.2.1", 4711, 0, 0), "192.0.2.1"),
        (socket.AF_INET6, ("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::/64"),
        (socket.AF_INET6, ("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
        (socket.AF_INET, ("127.0.0.1", 4711), "127.0.0.1"),
        (socket.AF_INET, ("127.255.3.2", 4711), "127.0.0.1"),
        (socket.AF_INET6, ("::1", 4711, 0, 0), "127.0.0.1"),
        (socket.AF_INET6, ("::ffff:127.0.0.9", 4711, 0, 0), "127.0.0.1"),
        (socket.AF_VSOCK, (3, 4711), "3"),
        (socket.AF_INET, (), "unknown"),
        (socket.AF_INET, ("nonsense\n", 1), "unknown"),
    ],
)
def test_only_unix_sockets_have_credentials(
    family: socket.AddressFamily, address: object, shown: str
) -> None:
    """For other sockets the kernel's answer is not a user: neither root nor (uid_t) -1."""
    for uid in (0, 1000, 0xFFFF_FFFF):
        peer = peer_of(Accepted(family, 0, uid, uid), address)
        assert (peer.uid, peer.user, peer.is_root) == (None, f"address {shown}", False)


def test_half_of_a_descriptor_number_is_ignored() -> None:
    whole = array.array("i", [5]).tobytes()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, whole + whole[:2])]
    assert fdsocket._rights(rights) == [5]
