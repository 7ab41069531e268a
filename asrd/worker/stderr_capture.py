"""What the engine's C code writes to stderr, kept where it outlives the process.

The reason of a crash (`terminate called ...`, CUDA's words, faulthandler's traceback) is written to
descriptor 2 in the last instant, and read by nobody here. So descriptor 2 is a memfd, which the
service manager keeps from one process to the next (the file descriptor store of sd_notify(3)): the
next one passes on what its predecessor no longer could, and tells the front the line that matters.
No restart waits for it. While the process lives, it passes on what comes, a few times a second;
Python's own sys.stderr and the log write to the real stderr at once.
"""

import os
import struct
import sys
from itertools import pairwise

from asrd import stdio
from asrd.safe_text import one_line
from asrd.systemd import Notifier
from asrd.wire.fds import OwnedFd

STORED = "stderr"
WORDS_MAX = 300

# At the memfd's beginning: up to which byte it was passed on, and the pid of who writes.
_HEADER = struct.Struct("<QQ")
# As much as is passed on at once, and looked at for the last words.
_PIECE = 64 * 1024
_TAIL = 8 * 1024
# A library that floods stderr loses some of it beyond this.
_ROOM = 1024 * 1024
# The first words of faulthandler's traceback, and of the thread in it that is at fault.
_DUMP, _FAULTY_THREAD = "Fatal Python error: ", "Current thread "


def last_words(text: bytes) -> str | None:
    """The line that says most about an end; None if there is none.

    That is the last one. Of faulthandler's traceback it is the first, with where the thread at
    fault was; and, where the process aborted itself, with what stood before: that is the reason.
    """
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    dumps = [index for index, line in enumerate(lines) if line.startswith(_DUMP)]
    told = lines[-1:]
    if dumps:
        dump, trace = lines[dumps[-1]], lines[dumps[-1] + 1 :]
        reason = lines[: dumps[-1]][-1:] if dump == f"{_DUMP}Aborted" else []
        where = [after for line, after in pairwise(trace) if line.startswith(_FAULTY_THREAD)]
        told = [*reason, dump, *where]
    return one_line(" / ".join(told))[:WORDS_MAX] if told else None


def keep_real_stderr() -> None:
    """From here on sys.stderr has a descriptor of its own, and 2 may become another."""
    sys.stderr = open(  # noqa: SIM115
        os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1
    )


class CapturedStderr:
    """Descriptor 2 of this process. `last_pid` and `last_words` are of the process before it.

    To be made once, after `keep_real_stderr`.
    """

    def __init__(self, stored: OwnedFd | None, notifier: Notifier) -> None:
        """Takes over what the service manager had stored, if it had. Raises OSError."""
        self._real = sys.stderr.fileno()
        self.last_pid: int | None = None
        self.last_words: str | None = None
        if stored is None:
            stored = OwnedFd(os.memfd_create("stderr", os.MFD_CLOEXEC))
            notifier.store(STORED, stored.fileno())
        with stored:
            self._inherit(stored.fileno())
            self._start_over(stored.fileno())
            os.dup2(stored.fileno(), 2)

    def _inherit(self, fd: int) -> None:
        """Whoever wrote it may have been taken over: it is read with care, and told as hearsay."""
        header, size = os.pread(fd, _HEADER.size, 0), os.fstat(fd).st_size
        if len(header) < _HEADER.size:
            return
        passed_on, pid = _HEADER.unpack(header)
        self.last_pid = pid if 0 < pid < 1 << 31 else None
        self.last_words = last_words(os.pread(fd, _TAIL, max(_HEADER.size, size - _TAIL)))
        stdio.write(self._real, os.pread(fd, _PIECE, max(min(passed_on, size), size - _PIECE)))

    def _start_over(self, fd: int = 2) -> None:
        os.ftruncate(fd, 0)
        self._mark(_HEADER.size, fd)
        # Whoever writes to it shares this offset.
        os.lseek(fd, _HEADER.size, os.SEEK_SET)

    def _mark(self, passed_on: int, fd: int = 2) -> None:
        self._passed_on = passed_on
        os.pwrite(fd, _HEADER.pack(passed_on, os.getpid()), 0)

    def pass_on(self) -> None:
        """What came since the last time, as far as the real stderr takes it; never waits."""
        size = os.fstat(2).st_size
        if size <= self._passed_on:
            return
        piece = os.pread(2, _PIECE, self._passed_on)
        self._mark(self._passed_on + stdio.write(self._real, piece))
        if size > _ROOM:
            self._start_over()
