"""One owner, from the first instant to the last."""

import errno
import os
from collections.abc import Iterator

import pytest

from asrd.wire.fds import OwnedFd


@pytest.fixture
def fd() -> Iterator[int]:
    """A descriptor that the test closes."""
    yield os.eventfd(0)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_close_ends_the_ownership_once(fd: int) -> None:
    owned = OwnedFd(fd)
    assert (owned.fileno(), repr(owned)) == (fd, f"<OwnedFd {fd}>")
    owned.close()
    assert not is_open(fd)
    assert repr(owned) == "<OwnedFd gone>"
    # The number may be somebody else's by now.
    somebody = os.eventfd(0)
    assert somebody == fd
    owned.close()
    assert is_open(somebody)
    os.close(somebody)


def test_take_moves_it_out(fd: int) -> None:
    owned = OwnedFd(fd)
    assert owned.take() == fd
    owned.close()
    del owned
    assert is_open(fd)
    os.close(fd)


@pytest.mark.parametrize("way", ["fileno", "take"])
def test_what_is_gone_can_not_be_had(fd: int, way: str) -> None:
    owned = OwnedFd(fd)
    owned.close()
    with pytest.raises(ValueError, match="closed or moved away"):
        getattr(owned, way)()


def test_a_block_closes_it_also_on_an_error(fd: int) -> None:
    with pytest.raises(ZeroDivisionError), OwnedFd(fd):
        raise ZeroDivisionError
    assert not is_open(fd)


def test_one_that_is_dropped_is_closed_with_a_warning(fd: int) -> None:
    owned = OwnedFd(fd)
    with pytest.warns(ResourceWarning, match=f"<OwnedFd {fd}> was dropped unclosed"):
        del owned
    assert not is_open(fd)


def test_one_that_is_dropped_is_closed_also_where_warnings_are_errors(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = []
    monkeypatch.setattr("sys.unraisablehook", lambda problem: ignored.append(problem.exc_value))
    owned = OwnedFd(fd)
    del owned
    assert not is_open(fd)
    assert [type(problem) for problem in ignored] == [ResourceWarning]


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT])
def test_what_a_file_system_says_late_of_others_writes_is_no_error_here(
    fd: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "close", fail)
    owned = OwnedFd(fd)
    owned.close()
    assert not is_open(fd)


def test_a_descriptor_that_somebody_else_closed_is_a_bug(fd: int) -> None:
    owned = OwnedFd(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        owned.close()
