"""The owner of a descriptor, from construction to the end."""

import errno
import os

import pytest

from asrd.wire.fds import OwnedFd


@pytest.fixture
def fd() -> int:
    """A descriptor that the test closes."""
    return os.eventfd(0)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_close_closes_once(fd: int) -> None:
    owned = OwnedFd(fd)
    assert (owned.fileno(), repr(owned)) == (fd, f"<OwnedFd {fd}>")
    owned.close()
    assert not is_open(fd)
    assert repr(owned) == "<OwnedFd gone>"
    # The number may belong to another owner now.
    with OwnedFd(os.eventfd(0)) as other:
        assert other.fileno() == fd
        owned.close()
        assert is_open(fd)


def test_take_ends_the_ownership(fd: int) -> None:
    owned = OwnedFd(fd)
    assert owned.take() == fd
    owned.close()
    for use in (owned.fileno, owned.take):
        with pytest.raises(ValueError, match="closed or moved away"):
            use()
    del owned, use
    assert is_open(fd)
    os.close(fd)


def test_with_closes_after_an_error(fd: int) -> None:
    with pytest.raises(ZeroDivisionError), OwnedFd(fd):
        raise ZeroDivisionError
    assert not is_open(fd)


def test_dropped_owner_closes_and_warns(fd: int) -> None:
    owned = OwnedFd(fd)
    with pytest.warns(ResourceWarning, match=f"<OwnedFd {fd}> was dropped unclosed"):
        del owned
    assert not is_open(fd)


def test_dropped_owner_closes_if_warnings_are_errors(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = []
    monkeypatch.setattr("sys.unraisablehook", lambda problem: ignored.append(problem.exc_value))
    owned = OwnedFd(fd)
    del owned
    assert not is_open(fd)
    assert [type(problem) for problem in ignored] == [ResourceWarning]


def test_late_error_of_a_file_system_is_ignored(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EDQUOT, "the quota of the file's owner")

    monkeypatch.setattr(os, "close", fail)
    OwnedFd(fd).close()
    assert not is_open(fd)


def test_close_of_a_closed_descriptor_is_a_bug(fd: int) -> None:
    owned = OwnedFd(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        owned.close()
