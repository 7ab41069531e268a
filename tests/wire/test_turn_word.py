"""The turn word, as its worker writes it and as a worker that lies may send it."""

import os
import resource

import pytest

from asrd.errors import ProtocolError
from asrd.wire.fds import OwnedFd
from asrd.wire.turn_word import TurnWord
from tests.support.raw import memfd


def test_front_reads_what_the_worker_wrote_last() -> None:
    ours = TurnWord.create()
    theirs = TurnWord.received(OwnedFd(os.dup(ours.fd.fileno())))
    assert theirs.read() == 0
    for key in (1, (1 << 53) - 1, 7):
        ours.write(key)
        assert theirs.read() == key
    ours.close()
    assert theirs.read() == 7
    theirs.close()


@pytest.mark.parametrize(("data", "key"), [(b"", 0), (b"\x05", 5), (b"\xff" * 99, (1 << 64) - 1)])
def test_word_of_any_length_is_read(data: bytes, key: int) -> None:
    word = TurnWord.received(memfd(data))
    assert word.read() == key
    word.close()


def test_word_that_may_not_be_read_names_no_job() -> None:
    with memfd(b"\x05") as fd:
        unreadable = os.open(f"/proc/self/fd/{fd.fileno()}", os.O_WRONLY)
    word = TurnWord.received(OwnedFd(unreadable))
    assert word.read() == 0
    word.close()


def test_another_file_is_refused_and_closed() -> None:
    """The read of a pipe, or of a file system that does not answer, might never end."""
    end, other = os.pipe()
    os.close(other)
    # Not one of /tmp, which on many machines is made of memory files.
    file = os.open("/proc/self/status", os.O_RDONLY)
    for fd in (OwnedFd(end), OwnedFd(file)):
        with pytest.raises(ProtocolError, match="the turn word is no memory file"):
            TurnWord.received(fd)
        with pytest.raises(ValueError, match="closed"):
            fd.fileno()


def test_key_is_written_also_when_no_file_may_grow() -> None:
    word = TurnWord.create()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        word.write(7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert word.read() == 7
    word.close()
