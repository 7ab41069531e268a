"""File descriptors: each has exactly one owner, which closes it once or moves it once."""

import errno
import fcntl
import os
import stat
import warnings
from abc import ABC, abstractmethod
from typing import Self

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}


class Closing(ABC):
    """Closed at the end of its `with`."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OwnedFd(Closing):
    """Owns `fd` from construction on.

    `close` and `take` end the ownership; an owner that is dropped while it still owns closes the
    descriptor and warns (ResourceWarning), since that is a bug.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __repr__(self) -> str:
        return f"<OwnedFd {self._fd}>" if self._fd >= 0 else "<OwnedFd gone>"

    def fileno(self) -> int:
        """The descriptor, still owned here. Raises ValueError once it is gone."""
        if self._fd < 0:
            raise ValueError("the descriptor was closed or moved away")
        return self._fd

    def take(self) -> int:
        """Move the descriptor out: the caller owns it from now on."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError as error:
                # It is closed all the same (close(2)). A file system that tells only now of a
                # client's writes that came to nothing must not end a job, let alone a thread.
                if error.errno == errno.EBADF:
                    raise

    def __del__(self) -> None:
        if self._fd >= 0:
            text = f"{self!r} was dropped unclosed"
            # First of all: where warnings are errors, nothing is done after one.
            self.close()
            warnings.warn(text, ResourceWarning, stacklevel=2)


def new_memfd() -> OwnedFd:
    """Returns an empty memfd for audio, to be written and then sealed. Raises OSError."""
    return OwnedFd(os.memfd_create("asrd-audio", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def seal(memfd: OwnedFd) -> None:
    """Makes a memfd immutable (F_ADD_SEALS, fcntl(2)): its reader never meets a file that shrinks
    or changes. Raises OSError."""
    fcntl.fcntl(memfd.fileno(), fcntl.F_ADD_SEALS, _SEALS)


def kind_of_file(mode: int) -> str:
    """Returns the kind of a file by its `st_mode`, in words: `a pipe`."""
    return _KINDS.get(stat.S_IFMT(mode), "no file")
