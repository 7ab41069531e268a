"""Keeps what the engine's C code writes to stderr, so that it outlives the process.

The reason for a crash (`terminate called ...`, CUDA's message, faulthandler's traceback) is written
to descriptor 2 in the last instant, when nothing in this process can read it. So descriptor 2 is a
memfd, which the service manager keeps from one process to the next (the file descriptor store of
sd_notify(3)). The next process passes on what its predecessor could not, and reports the line that
matters to the front. No restart waits for this. While a process lives, it passes on new text a few
times a second; Python's own sys.stderr and the log write to the real stderr at once.
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

# The start of the memfd: the offset up to which it was passed on, and the writer's pid.
_HEADER = struct.Struct("<QQ")
# The most that is passed on at once, and the part that is searched for the last words.
_PIECE = 64 * 1024
_TAIL = 8 * 1024
# A library that floods stderr loses text beyond this size.
_ROOM = 1024 * 1024
# How faulthandler's traceback begins, and in it the stack of the thread that crashed.
_DUMP, _FAULTY_THREAD = "Fatal Python error: ", "Current thread "


def last_words(text: bytes) -> str | None:
    """Returns the text that explains best how a process ended, on one line; None if there is none.

    It is the last line; of faulthandler's traceback the first line and the innermost frame of the
    thread that crashed. Where the process aborted, the line before the traceback is the reason.
    """
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    dumps = [index for index, line in enumerate(lines) if line.startswith(_DUMP)]
    chosen = lines[-1:]
    if dumps:
        dump, trace = lines[dumps[-1]], lines[dumps[-1] + 1 :]
        reason = lines[: dumps[-1]][-1:] if dump == f"{_DUMP}Aborted" else []
        where = [after for line, after in pairwise(trace) if line.startswith(_FAULTY_THREAD)]
        chosen = [*reason, dump, *where]
    return one_line(" / ".join(chosen))[:WORDS_MAX] if chosen else None


def keep_real_stderr() -> None:
    """Gives sys.stderr a descriptor of its own, so that descriptor 2 can be replaced."""
    sys.stderr = open(  # noqa: SIM115
        os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1
    )


class CapturedStderr:
    """Replaces descriptor 2; made once, after `keep_real_stderr`.

    `last_pid` and `last_words` describe the process before this one.
    """

    def __init__(self, stored: OwnedFd | None, notifier: Notifier) -> None:
        """Takes over `stored`, the memfd of the process before, if there is one. Raises OSError."""
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
        """Reads the text of the process before, which is not trusted: it may have been hijacked."""
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
        # All writers share this offset.
        os.lseek(fd, _HEADER.size, os.SEEK_SET)

    def _mark(self, passed_on: int, fd: int = 2) -> None:
        self._passed_on = passed_on
        os.pwrite(fd, _HEADER.pack(passed_on, os.getpid()), 0)

    def add(self, line: str) -> None:
        """Adds a line to what the engine wrote: the reason if the process is aborted now."""
        os.write(2, f"{line}\n".encode())

    def pass_on(self) -> None:
        """Copies new text to the real stderr, as much as that takes without waiting."""
        size = os.fstat(2).st_size
        if size <= self._passed_on:
            return
        piece = os.pread(2, _PIECE, self._passed_on)
        self._mark(self._passed_on + stdio.write(self._real, piece))
        if size > _ROOM:
            self._start_over()
