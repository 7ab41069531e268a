"""A client's descriptor as a file that is only read, with an offset of its own."""

import copy
import fcntl
import os
import stat

from asrd.errors import BadAudio


class PreadFile:
    """The file object that PyAV gets. No `name`: FFmpeg would look at the extension."""

    def __init__(self, fd: int) -> None:
        try:
            status = os.fstat(fd)
            mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError as error:
            raise BadAudio(f"audio: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BadAudio(f"audio: is {_kind(status.st_mode)}, not a file")
        if mode == os.O_WRONLY:
            raise BadAudio("audio: the descriptor is open for writing only")
        if not status.st_size:
            raise BadAudio("audio: is empty")
        self.size = status.st_size
        self._fd = fd
        self._offset = 0

    def part(self, start: int, end: int) -> "PreadFile":
        """Another reader of the same bytes, which begins and ends there."""
        other = copy.copy(self)
        other._offset, other.size = start, min(end, self.size)
        return other

    def read(self, count: int) -> bytes:
        """Raises BadAudio if the file can't be read or has become shorter."""
        count = min(count, self.size - self._offset)
        if count <= 0:
            return b""
        try:
            data = os.pread(self._fd, count, self._offset)
        except OSError as error:
            raise BadAudio(f"audio: can't be read: {error.strerror}") from None
        if not data:
            raise BadAudio("audio: was truncated while it was read")
        self._offset += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("a negative offset")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        return self._offset


def _kind(mode: int) -> str:
    names = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return names.get(stat.S_IFMT(mode), "something else")
