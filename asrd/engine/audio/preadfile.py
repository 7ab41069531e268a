"""A client's descriptor as a read-only file object with an offset of its own."""

import copy
import fcntl
import os
import stat

from asrd.errors import BadAudio
from asrd.wire.fds import kind_of_file

# Read at a time by a search: little at first, because many searches end soon.
_FIRST_BYTES, _MOST_BYTES = 1 << 12, 1 << 20


class Starved(BadAudio):
    """Raised when a demuxer reads more than its `allowance` without giving a packet."""


class PreadFile:
    """The file object that PyAV gets. It has no `name`, because FFmpeg would use the extension.

    `allowance`: the bytes that may still be read; None for no limit. FFmpeg allocates the memory
    that a hostile header claims, as fast as it can read, before anybody sees the packet.

    Raises BadAudio, here and in each reading method, if the descriptor is not a readable regular
    file, or became shorter.
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
        # The descriptor's offset at which this file begins.
        self._base = 0
        # Bytes that replace those of the descriptor, and their offset in this file.
        self._patch, self._patched = b"", 0

    def part(self, start: int, end: int) -> "PreadFile":
        """Returns the bytes from `start` to `end` as a file of its own."""
        other = copy.copy(self)
        other._base += start
        other.size = max(0, min(end, self.size) - start)
        other._offset = 0
        return other

    def patched(self, offset: int, patch: bytes) -> "PreadFile":
        """Returns the same file with `patch` in place of the bytes at `offset`."""
        other = copy.copy(self)
        other._patch, other._patched = patch, offset
        other._offset = 0
        return other

    def find(self, pattern: bytes, start: int) -> int:
        """Returns the first offset of `pattern` from `start` on, or -1."""
        count = _FIRST_BYTES
        while start < self.size:
            found = self.at(start, count + len(pattern) - 1).find(pattern)
            if found >= 0:
                return start + found
            start += count
            count = min(2 * count, _MOST_BYTES)
        return -1

    def at(self, offset: int, count: int) -> bytes:
        """Returns the `count` bytes at `offset`; fewer only at the end."""
        count = min(count, self.size - offset)
        if offset < 0 or count <= 0:
            return b""
        data = self._pread(offset, count)
        # pread(2) may return less at any time.
        while len(data) < count:
            data += self._pread(offset + len(data), count - len(data))
        begin = max(self._patched, offset)
        end = min(self._patched + len(self._patch), offset + count)
        if begin < end:
            patch = self._patch[begin - self._patched : end - self._patched]
            data = data[: begin - offset] + patch + data[end - offset :]
        return data

    def _pread(self, offset: int, count: int) -> bytes:
        try:
            data = os.pread(self._fd, count, self._base + offset)
        except OSError as error:
            raise BadAudio(f"audio: can't be read: {error.strerror}") from None
        if not data:
            raise BadAudio("audio: was truncated while it was read")
        return data

    def read(self, count: int) -> bytes:
        """Reads from this file's own offset. Raises Starved, too."""
        data = self.at(self._offset, count)
        self._offset += len(data)
        if self.allowance is not None:
            self.allowance -= len(data)
            if self.allowance < 0:
                raise Starved("audio: a header or a packet of the file is larger than 64 MiB")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self.size}
        self._offset = starts[whence] + offset
        return self._offset

    def tell(self) -> int:
        return self._offset
