"""The turn word: which job has the turn in a worker, told in a way that outlives the worker.

A memory file of eight bytes, shared by a worker and the front. The worker writes a job's key before
it runs a turn of it, and 0 when no job has one. When the worker is gone, the front reads whose turn
it was. It reads with pread: a mapping of a file that a worker has cut short would kill the front.
The worker writes into a mapping, which works also when no more room for files is left.
"""

import fcntl
import mmap
import os

from asrd.errors import ProtocolError
from asrd.wire.fds import OwnedFd

_BYTES = 8


class TurnWord:
    """Owns the descriptor."""

    def __init__(self, fd: OwnedFd, mapping: mmap.mmap | None = None) -> None:
        """`mapping`: of a worker that writes."""
        self.fd = fd
        self._mapping = mapping

    @classmethod
    def create(cls) -> "TurnWord":
        """Raises OSError."""
        fd = OwnedFd(os.memfd_create("asrd turn", os.MFD_CLOEXEC))
        os.ftruncate(fd.fileno(), _BYTES)
        word = cls(fd, mmap.mmap(fd.fileno(), _BYTES))
        word.write(0)
        return word

    @classmethod
    def received(cls, fd: OwnedFd) -> "TurnWord":
        """Raises ProtocolError, and closes it, if it is no memory file: reading another file may
        never end."""
        try:
            fcntl.fcntl(fd.fileno(), fcntl.F_GET_SEALS)
        except OSError:
            fd.close()
            raise ProtocolError("the turn word is no memory file") from None
        return cls(fd)

    def write(self, key: int) -> None:
        if self._mapping is not None:
            self._mapping[:] = key.to_bytes(_BYTES, "little")

    def read(self) -> int:
        """Returns the key of the job that has the turn, 0 if there is none or it can't be read."""
        try:
            return int.from_bytes(os.pread(self.fd.fileno(), _BYTES, 0), "little")
        except OSError:
            return 0

    def close(self) -> None:
        if self._mapping is not None:
            self._mapping.close()
        self.fd.close()
