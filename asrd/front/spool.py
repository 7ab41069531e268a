"""Audio as descriptors: inline bytes go into a memfd, a client's own descriptor is checked.

The front never holds a recording as a Python bytes object.
"""

import fcntl
import os
import stat

from asrd.errors import BadAudio, Busy, TooLarge
from asrd.quota import Quota
from asrd.wire import fds
from asrd.wire.fds import OwnedFd
from asrd.wire.peer import User

# The bytes that are copied at once.
_PIECE = 1 << 18


class SpooledAudio:
    """A memfd of `user` that grows up to `limit` bytes; a sink for payloads (frames.Sink).

    A write past a limit, or without memory, fails silently, so that the framing stays intact:
    `seal` raises the error once the event is complete. The memory is released at once.
    """

    def __init__(self, spool: Quota, user: User, limit: int) -> None:
        self._spool = spool
        self._user = user
        self._limit = limit
        self._problem: TooLarge | Busy | None = None
        # False when it is sealed or closed: the rest of a payload that was arriving is dropped.
        self._grows = True
        self.size = 0
        try:
            self.fd = fds.new_memfd()
        except OSError as error:
            self.fd, self._problem = OwnedFd(-1), _exhausted(error)

    @classmethod
    def resumed(
        cls, spool: Quota, user: User, limit: int, audio: tuple[OwnedFd, int] | TooLarge | Busy
    ) -> "SpooledAudio":
        """Goes on with the memfd and the size of another process, or with why there is none."""
        made = cls.__new__(cls)
        made._spool, made._user, made._limit = spool, user, limit
        made._grows, made.size, made._problem = True, 0, None
        if isinstance(audio, tuple):
            made.fd, made.size = audio
            spool.add(user, made.size)
        else:
            made.fd, made._problem = OwnedFd(-1), audio
        return made

    def write(self, data: memoryview) -> None:
        if self._problem is None and self._grows:
            self._problem = self._refusal(len(data)) or self._append(data)
            if self._problem is not None:
                self.close()

    def _refusal(self, more: int) -> TooLarge | Busy | None:
        if self.size + more > self._limit:
            return TooLarge(f"audio: is over the limit of {self._limit} bytes")
        full = self._spool.why_full(self._user, more)
        return None if full is None else Busy(full, retry_after_ms=1000)

    def _append(self, data: memoryview) -> Busy | None:
        done, problem = 0, None
        try:
            while done < len(data):
                done += os.write(self.fd.fileno(), data[done:])
        except OSError as error:
            problem = _exhausted(error)
        self.size += done
        self._spool.add(self._user, done)
        return problem

    @property
    def problem(self) -> TooLarge | Busy | None:
        """The reason why a write failed."""
        return self._problem

    def check(self) -> None:
        """Raises TooLarge or Busy if a write failed."""
        if self._problem is not None:
            raise self._problem

    def seal(self) -> None:
        """Makes the audio immutable. Raises as `check` does."""
        self.check()
        self._grows = False
        fds.seal(self.fd)

    def cut(self, size: int) -> None:
        """Keeps the first `size` bytes. Raises as `check` does."""
        self.check()
        os.ftruncate(self.fd.fileno(), size)
        self._spool.add(self._user, size - self.size)
        self.size = size

    def copy(self, begin: int, end: int | None = None) -> "SpooledAudio":
        """Returns the bytes from `begin` to `end` as a recording of its own. Raises as `check`."""
        self.check()
        end = self.size if end is None else min(end, self.size)
        made = SpooledAudio(self._spool, self._user, self._limit)
        while begin < end and made._problem is None:
            piece = os.pread(self.fd.fileno(), min(_PIECE, end - begin), begin)
            made.write(memoryview(piece))
            begin += len(piece)
        if made._problem is not None:
            made.close()
            raise made._problem
        return made

    def close(self) -> None:
        self._grows = False
        self._spool.add(self._user, -self.size)
        self.size = 0
        self.fd.close()


class ClientFile:
    """A descriptor that a client sent: the worker reads it as it is, the front never does."""

    def __init__(self, fd: OwnedFd, limit: int) -> None:
        """Takes `fd` over. Raises BadAudio or TooLarge (and closes it)."""
        try:
            self.size = _checked_size(fd.fileno(), limit)
        except BaseException:
            fd.close()
            raise
        self.fd = fd

    @classmethod
    def resumed(cls, fd: OwnedFd, size: int) -> "ClientFile":
        """Goes on with a file that another process has checked."""
        made = cls.__new__(cls)
        made.fd, made.size = fd, size
        return made

    def close(self) -> None:
        self.fd.close()


def _exhausted(error: OSError) -> Busy:
    return Busy(f"no room for the audio: {error.strerror}", retry_after_ms=1000)


def _checked_size(fd: int, limit: int) -> int:
    try:
        status = os.fstat(fd)
    except OSError as error:
        # For example, a file on another user's FUSE file system.
        raise BadAudio(f"audio: the descriptor cannot be inspected: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = fds.kind_of_file(status.st_mode)
        raise BadAudio(f"audio: the descriptor is {kind}, not a regular file or memfd")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_PATH:
        raise BadAudio("audio: the descriptor is not open for reading")
    if status.st_size == 0:
        raise BadAudio("audio: the file is empty")
    if status.st_size > limit:
        raise TooLarge(f"audio: {status.st_size} bytes are over the limit of {limit}")
    return status.st_size
