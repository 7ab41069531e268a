"""A client's descriptor as a file that is only read, with an offset of its own."""

import copy
import fcntl
import os
import stat

from asrd.errors import BadAudio
from asrd.wire.fds import kind_of_file

_SEARCHED = 1 << 20


class Starved(BadAudio):
    """A demuxer read more than its `allowance` without giving a packet."""


class PreadFile:
    """The file object that PyAV gets. No `name`: FFmpeg would look at the extension.

    `allowance`, if set, is how many bytes may still be read: FFmpeg allocates as much memory as a
    hostile header claims, as fast as it can read it, before anybody sees the packet.
    """

    def __init__(self, fd: int) -> None:
        try:
            status = os.fstat(fd)
            mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError as error:
            raise BadAudio(f"audio: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BadAudio(f"audio: is {kind_of_file(status.st_mode)}, not a file")
        if mode == os.O_WRONLY:
            raise BadAudio("audio: the descriptor is open for writing only")
        if not status.st_size:
            raise BadAudio("audio: is empty")
        self.size = status.st_size
        self.allowance: int | None = None
        self._fd = fd
        self._offset = 0
        # Where this file begins in the descriptor's.
        self._base = 0
        # Bytes that stand in for others, and where.
        self._patch, self._patched = b"", 0

    def part(self, start: int, end: int) -> "PreadFile":
        """Another reader of the bytes from `start` to `end`, as a file of its own."""
        other = copy.copy(self)
        other._base += start
        other.size = max(0, min(end, self.size) - start)
        other._offset = 0
        return other

    def patched(self, offset: int, patch: bytes) -> "PreadFile":
        """Another reader of the same bytes, with `patch` instead of those at `offset`."""
        other = copy.copy(self)
        other._patch, other._patched = patch, offset
        other._offset = 0
        return other

    def find(self, what: bytes, start: int) -> int:
        """The offset of `what` from `start` on; -1 if it is not there."""
        overlap = len(what) - 1
        while start < self.size:
            found = self.at(start, _SEARCHED + overlap).find(what)
            if found >= 0:
                return start + found
            start += _SEARCHED
        return -1

    def at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes there; fewer only at the end."""
        count = min(count, self.size - offset)
        if offset < 0 or count <= 0:
            return b""
        try:
            data = os.pread(self._fd, count, self._base + offset)
        except OSError as error:
            raise BadAudio(f"audio: can't be read: {error.strerror}") from None
        if not data:
            raise BadAudio("audio: was truncated while it was read")
        begin = max(self._patched, offset)
        end = min(self._patched + len(self._patch), offset + len(data))
        if begin < end:
            patch = self._patch[begin - self._patched : end - self._patched]
            data = data[: begin - offset] + patch + data[end - offset :]
        return data

    def read(self, count: int) -> bytes:
        """Raises BadAudio if the file can't be read or has become shorter; Starved."""
        data = self.at(self._offset, count)
        self._offset += len(data)
        if self.allowance is not None:
            self.allowance -= len(data)
            if self.allowance < 0:
                raise Starved("audio: a header or a packet of the file is larger than 64 MiB")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("a negative offset")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        return self._offset
