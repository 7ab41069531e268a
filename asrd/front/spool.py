"""Audio as descriptors: inline bytes go into a memfd, a client's own descriptor is checked.

The front moves audio only this way, never as a Python bytes object that grows with the recording.
"""

import fcntl
import os
import stat

from asrd.errors import BadAudio, Busy, TooLarge
from asrd.front.scheduling.quota import Quota
from asrd.wire.fds import OwnedFd
from asrd.wire.peer import User

# The worker must never meet a file that shrinks under it; sealed, it need not even check.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}


class SpooledAudio:
    """A memfd of `user` that grows with what is written to it, up to `limit` bytes; a
    wire.Sink.

    A write past a bound, or without memory, is swallowed and remembered: `seal` raises it once the
    event is complete, so that the framing stays intact. What was written before is given back at
    once: it is of no more use.
    """

    def __init__(self, spool: Quota, user: User, limit: int) -> None:
        self._spool = spool
        self._user = user
        self._limit = limit
        self._problem: TooLarge | Busy | None = None
        self.size = 0
        try:
            fd = os.memfd_create("asrd-audio", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            fd, self._problem = -1, _exhausted(error)
        self.fd = OwnedFd(fd)

    def write(self, data: memoryview) -> None:
        if self._problem is None:
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

    def seal(self) -> None:
        """No byte changes from here on. Raises TooLarge or Busy if some were not taken."""
        if self._problem is not None:
            raise self._problem
        fcntl.fcntl(self.fd.fileno(), fcntl.F_ADD_SEALS, _SEALS)

    def close(self) -> None:
        self._spool.add(self._user, -self.size)
        self.size = 0
        self.fd.close()


class ClientFile:
    """A descriptor that a client sent: read by the worker as it is, never by the front."""

    def __init__(self, fd: OwnedFd, limit: int) -> None:
        """Takes `fd` over. Raises BadAudio or TooLarge (and closes it)."""
        try:
            self.size = _checked_size(fd.fileno(), limit)
        except BaseException:
            fd.close()
            raise
        self.fd = fd

    def close(self) -> None:
        self.fd.close()


JobAudio = SpooledAudio | ClientFile


def _exhausted(error: OSError) -> Busy:
    return Busy(f"no room for the audio: {error.strerror}", retry_after_ms=1000)


def _checked_size(fd: int, limit: int) -> int:
    try:
        status = os.fstat(fd)
    except OSError as error:
        # Another user's FUSE file system tells nobody else anything, say.
        raise BadAudio(f"audio: the descriptor cannot be looked at: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise BadAudio(f"audio: the descriptor is {kind}, not a regular file or memfd")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_PATH:
        raise BadAudio("audio: the descriptor is not open for reading")
    if status.st_size == 0:
        raise BadAudio("audio: the file is empty")
    if status.st_size > limit:
        raise TooLarge(f"audio: {status.st_size} bytes are over the limit of {limit}")
    return status.st_size
