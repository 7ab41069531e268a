"""Audio as descriptors: accepted, refused, and released."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from asrd.errors import BadAudio, Busy, TooLarge
from asrd.front.spool import ClientFile, SpooledAudio
from asrd.quota import Quota
from asrd.wire.fds import OwnedFd
from tests.support.raw import memfd

ALICE, BOB = 1000, 1001
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@pytest.fixture
def spool() -> Quota:
    return Quota(100, 80, "bytes of inline audio")


@pytest.fixture
def recording(spool: Quota) -> Iterator[SpooledAudio]:
    made = SpooledAudio(spool, ALICE, limit=60)
    yield made
    made.close()
    assert spool.used == 0


def exhausted(*_: Any) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


def write(recording: SpooledAudio, data: bytes) -> None:
    recording.write(memoryview(data))


# --- inline audio ---------------------------------------------------------------------------------


def test_sealed_audio_can_be_read_and_never_changes(recording: SpooledAudio) -> None:
    write(recording, b"one ")
    write(recording, b"")
    write(recording, b"two")
    recording.seal()
    fd = recording.fd.fileno()
    assert (recording.size, os.pread(fd, 99, 0)) == (7, b"one two")
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == SEALS
    assert not os.get_inheritable(fd)
    for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.truncate(fd, 0)):
        with pytest.raises(PermissionError):
            change()
    with pytest.raises(PermissionError):
        os.truncate(fd, 1000)


def test_recording_past_its_limit_is_too_large_whatever_follows(recording: SpooledAudio) -> None:
    write(recording, b"x" * 60)
    recording.check()
    write(recording, b"x")
    write(recording, b"x")
    assert recording.size == 0
    with pytest.raises(TooLarge, match="audio: is over the limit of 60 bytes"):
        recording.seal()


@pytest.mark.parametrize(
    ("other", "fitting", "error"),
    [
        (BOB, 40, "all clients is reached .bytes of inline audio: 100"),
        (ALICE, 20, "user 1000 is reached .bytes of inline audio: 80"),
    ],
)
def test_recordings_are_limited_in_all_and_by_user(
    spool: Quota, recording: SpooledAudio, other: int, fitting: int, error: str
) -> None:
    second = SpooledAudio(spool, other, 60)
    write(recording, b"x" * 60)
    write(second, b"x" * fitting)
    assert spool.used == 60 + fitting
    write(second, b"x")
    with pytest.raises(Busy, match=error) as caught:
        second.seal()
    assert caught.value.retry_after_ms == 1000
    # The memory is released before the client has sent the rest.
    assert spool.used == 60
    second.close()
    third = SpooledAudio(spool, BOB, 60)
    write(third, b"x" * 40)
    third.seal()
    third.close()
    recording.seal()


def test_recording_without_memory_is_busy(
    spool: Quota, recording: SpooledAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    written: list[int] = []

    def half(fd: int, data: memoryview) -> int:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(real(fd, data[: len(data) // 2]))
        return written[0]

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        write(recording, b"x" * 10)
    write(recording, b"x" * 10)
    assert (written, recording.size, spool.used) == ([5], 0, 0)
    with pytest.raises(Busy, match="no room for the audio: No space left on device"):
        recording.seal()


def test_recording_without_a_descriptor_is_busy_once_it_is_complete(
    spool: Quota, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "memfd_create", exhausted)
    recording = SpooledAudio(spool, ALICE, 60)
    write(recording, b"audio")
    with pytest.raises(Busy, match="Too many open files"):
        recording.seal()
    recording.close()
    assert spool.used == 0


def test_write_that_the_kernel_takes_in_parts_is_complete(
    recording: SpooledAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
        write(recording, b"one two three")
    assert os.pread(recording.fd.fileno(), 99, 0) == b"one two three"
    assert recording.size == 13


# --- descriptors of clients -----------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "audio"
    file.write_bytes(b"x" * 60)
    return file


def _memfd(_: Path) -> int:
    return memfd(b"x" * 60).take()


Opener = Callable[[Path], int]
TAKEN: list[Opener] = [
    lambda path: os.open(path, os.O_RDONLY),
    lambda path: os.open(path, os.O_RDWR | os.O_NONBLOCK),
    _memfd,
]


@pytest.mark.parametrize("opened", TAKEN)
def test_readable_file_is_taken(opened: Opener, path: Path) -> None:
    fd = opened(path)
    taken = ClientFile(OwnedFd(fd), limit=60)
    assert (taken.size, taken.fd.fileno()) == (60, fd)
    taken.close()
    taken.close()


def _pipe(_: Path) -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def _socket(_: Path) -> int:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours.detach()


def _link(path: Path) -> int:
    link = path.with_name("link")
    link.symlink_to(path)
    return os.open(link, os.O_PATH | os.O_NOFOLLOW)


def _empty(path: Path) -> int:
    path.write_bytes(b"")
    return os.open(path, os.O_RDONLY)


REFUSED: list[tuple[Opener, str]] = [
    (_pipe, "audio: the descriptor is a pipe, not a regular file or memfd"),
    (_socket, "audio: the descriptor is a socket, not"),
    (_link, "audio: the descriptor is a symbolic link, not"),
    (lambda path: os.open(path.parent, os.O_RDONLY), "audio: the descriptor is a directory, not"),
    (lambda _: os.open("/dev/zero", os.O_RDONLY), "audio: the descriptor is a character device"),
    (lambda _: os.eventfd(5), "audio: the descriptor is no file, not"),
    (lambda path: os.open(path, os.O_WRONLY), "audio: the descriptor is not open for reading"),
    (lambda path: os.open(path, os.O_PATH), "audio: the descriptor is not open for reading"),
    (_empty, "audio: the file is empty"),
]


@pytest.mark.parametrize(("opened", "error"), REFUSED, ids=[error for _, error in REFUSED])
def test_other_descriptor_is_bad_audio_and_closed(opened: Opener, error: str, path: Path) -> None:
    owned = OwnedFd(opened(path))
    with pytest.raises(BadAudio) as caught:
        ClientFile(owned, limit=60)
    assert str(caught.value).startswith(error)
    assert repr(owned) == "<OwnedFd gone>"


def test_file_past_the_limit_is_too_large_and_closed(path: Path) -> None:
    owned = OwnedFd(os.open(path, os.O_RDONLY))
    with pytest.raises(TooLarge, match="audio: 60 bytes are over the limit of 59"):
        ClientFile(owned, limit=59)
    assert repr(owned) == "<OwnedFd gone>"


def test_file_that_cannot_be_examined_is_bad_audio_and_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = OwnedFd(os.open(path, os.O_RDONLY))
    with monkeypatch.context() as patch, pytest.raises(BadAudio, match="cannot be inspected"):
        patch.setattr(os, "fstat", exhausted)
        ClientFile(owned, 100)
    assert repr(owned) == "<OwnedFd gone>"


def test_copy_is_a_recording_of_its_own(spool: Quota, recording: SpooledAudio) -> None:
    write(recording, b"0123456789")
    with_end, rest = recording.copy(2, 5), recording.copy(4)
    assert os.pread(with_end.fd.fileno(), 100, 0) == b"234"
    assert os.pread(rest.fd.fileno(), 100, 0) == b"456789"
    assert spool.used == 10 + 3 + 6
    with_end.seal()
    write(recording, b"more")
    assert recording.size == 14
    with_end.close()
    rest.close()


def test_copy_without_room_leaves_nothing(spool: Quota, recording: SpooledAudio) -> None:
    write(recording, bytes(50))
    with pytest.raises(Busy):
        recording.copy(0)
    assert spool.used == 50


def test_recording_that_failed_has_no_copy(recording: SpooledAudio) -> None:
    write(recording, bytes(61))
    with pytest.raises(TooLarge):
        recording.copy(0)


def test_rest_of_a_payload_is_dropped_when_the_recording_has_ended(recording: SpooledAudio) -> None:
    """A stream may end in the middle of a chunk: its speech has ended, or its job was cancelled."""
    write(recording, b"abc")
    recording.cut(2)
    recording.seal()
    write(recording, b"late")
    assert recording.size == 2 and os.pread(recording.fd.fileno(), 9, 0) == b"ab"
    recording.close()
    write(recording, b"later")
    assert recording.size == 0
