"""Audio as descriptors: what is taken, what is refused, and that the memory is given back."""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from asrd.errors import BadAudio, Busy, TooLarge
from asrd.front.scheduling.quota import Quota
from asrd.front.spool import ClientFile, SpooledAudio
from asrd.wire.fds import OwnedFd

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


def write(recording: SpooledAudio, data: bytes) -> None:
    recording.write(memoryview(data))


# --- what comes inline ----------------------------------------------------------------------------


def test_what_was_written_can_be_read_and_not_be_changed(recording: SpooledAudio) -> None:
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


def test_a_recording_at_its_limit_is_taken(recording: SpooledAudio) -> None:
    write(recording, b"x" * 60)
    recording.seal()


def test_past_its_limit_a_recording_is_too_large_whatever_follows(recording: SpooledAudio) -> None:
    write(recording, b"x" * 50)
    write(recording, b"x" * 11)
    write(recording, b"x")
    assert recording.size == 0
    with pytest.raises(TooLarge, match="audio: is over the limit of 60 bytes"):
        recording.seal()


def test_all_recordings_together_are_bounded(spool: Quota) -> None:
    first, second = SpooledAudio(spool, ALICE, 60), SpooledAudio(spool, BOB, 60)
    write(first, b"x" * 60)
    write(second, b"x" * 40)
    assert spool.used == 100
    write(second, b"x")
    with pytest.raises(
        Busy, match=r"all clients is reached \(100 bytes of inline audio\)"
    ) as caught:
        second.seal()
    assert caught.value.retry_after_ms == 1000
    # What is of no more use is given back before its client is through.
    assert spool.used == 60
    first.seal()
    first.close()
    second.close()
    second.close()
    assert spool.used == 0


def test_the_recordings_of_a_user_are_bounded_and_leave_room_for_others(spool: Quota) -> None:
    mine, more, other = (SpooledAudio(spool, uid, 60) for uid in (ALICE, ALICE, BOB))
    write(mine, b"x" * 60)
    write(more, b"x" * 20)
    write(more, b"x")
    with pytest.raises(Busy, match=r"user 1000 is reached \(80 bytes of inline audio\)") as caught:
        more.seal()
    assert caught.value.retry_after_ms == 1000
    write(other, b"x" * 40)
    other.seal()
    for recording in (mine, more, other):
        recording.close()
    assert spool.used == 0


def test_what_was_given_back_can_be_used_again(spool: Quota) -> None:
    for _ in range(5):
        recording = SpooledAudio(spool, ALICE, 100)
        write(recording, b"x" * 80)
        recording.seal()
        recording.close()


def test_without_memory_a_recording_is_busy(
    recording: SpooledAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(recording, b"x" * 10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        write(recording, b"x" * 10)
    write(recording, b"x" * 10)
    assert recording.size == 0
    with pytest.raises(Busy, match="no room for the audio: No space left on device"):
        recording.seal()


def test_a_write_that_the_kernel_takes_in_parts_is_whole(
    recording: SpooledAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
        write(recording, b"one two three")
    assert os.pread(recording.fd.fileno(), 99, 0) == b"one two three"
    assert recording.size == 13


# --- what a client sends --------------------------------------------------------------------------


def memfd() -> int:
    fd = os.memfd_create("client")
    os.write(fd, b"x" * 60)
    return fd


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "audio"
    file.write_bytes(b"x" * 60)
    return file


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK])
def test_a_file_that_can_be_read_is_taken(flags: int, path: Path) -> None:
    fd = os.open(path, flags)
    taken = ClientFile(OwnedFd(fd), limit=60)
    assert (taken.size, taken.fd.fileno()) == (60, fd)
    taken.close()
    taken.close()


def test_a_memfd_is_taken() -> None:
    taken = ClientFile(OwnedFd(memfd()), limit=60)
    assert taken.size == 60
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


Opener = Callable[[Path], int]
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
def test_anything_else_is_bad_audio_and_closed(opened: Opener, error: str, path: Path) -> None:
    owned = OwnedFd(opened(path))
    with pytest.raises(BadAudio) as caught:
        ClientFile(owned, limit=60)
    assert str(caught.value).startswith(error)
    assert repr(owned) == "<OwnedFd gone>"


def test_a_file_past_the_limit_is_too_large_and_closed(path: Path) -> None:
    owned = OwnedFd(os.open(path, os.O_RDONLY))
    with pytest.raises(TooLarge, match="audio: 60 bytes are over the limit of 59"):
        ClientFile(owned, limit=59)
    assert repr(owned) == "<OwnedFd gone>"
