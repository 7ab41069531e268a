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
    """A base class: `with` closes the object."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OwnedFd(Closing):
    """The owner of `fd`, until `close` or `take`.

    An owner that is dropped before is a bug: it closes the descriptor and emits a ResourceWarning.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __repr__(self) -> str:
        return f"<OwnedFd {self._fd}>" if self._fd >= 0 else "<OwnedFd gone>"

    def fileno(self) -> int:
        """Returns the descriptor, still owned. Raises ValueError after `close` or `take`."""
        if self._fd < 0:
            raise ValueError("the descriptor was closed or moved away")
        return self._fd

    def take(self) -> int:
        """Returns the descriptor; the caller owns it from now on. Raises ValueError."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError as error:
                # The descriptor is closed even so (close(2)). A late error of a file system, about
                # writes of a client, must not end a job or a thread.
                if error.errno == errno.EBADF:
                    raise

    def __del__(self) -> None:
        if self._fd >= 0:
            text = f"{self!r} was dropped unclosed"
            # Before the warning, which may be an error and raise.
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
