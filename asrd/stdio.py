"""The three standard streams, any of which may be closed, broken, or never read.

`asrd run 2>&1 | head -1`, a closed terminal, `2>&-`, a pager that is paused: no message is worth an
accepted job, so nothing here fails because of its stream or waits for its reader.
"""

import io
import os
import select
import sys
from typing import TextIO


class DevNull(io.TextIOWrapper):
    """/dev/null in place of a standard stream that was closed when the program started."""

    def __init__(self, mode: str) -> None:
        file = open(os.devnull, mode)  # noqa: SIM115
        super().__init__(file, encoding="utf-8", errors="backslashreplace")


def open_missing() -> None:
    """Opens /dev/null in place of each standard stream that is closed.

    Otherwise the next socket or file would get its number, and text would be written into it. Must
    be called before anything else is opened.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            # This is the lowest free number, so it becomes `fd`. Child processes inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, DevNull("rb" if fd == 0 else "wb"))


def silence(stream: TextIO) -> None:
    """Redirects a broken stream to /dev/null. Otherwise the interpreter's last flush would fail,
    print a traceback and change the exit code to 120."""
    fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, stream.fileno())
    os.close(fd)


def say(text: str) -> None:
    """Writes a line to stderr, or drops it if stderr does not take it now."""
    write_line(sys.stderr, text)


def write_line(stream: TextIO, text: str) -> bool:
    """Writes a line without waiting; returns False if it was cut off or lost."""
    try:
        fd = stream.fileno()
    except (OSError, ValueError):
        # A stream without a descriptor (in a test) never makes us wait.
        stream.write(f"{text}\n")
        return True
    data = f"{text}\n".encode("utf-8", "backslashreplace")
    return write(fd, data) == len(data)


def write(fd: int, data: bytes) -> int:
    """Writes without waiting; returns the number of bytes written. A broken descriptor counts as
    one that takes everything."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    done = 0
    try:
        while done < len(data) and _is_ready(poll):
            # A pipe that is ready takes at least PIPE_BUF bytes; more might block.
            done += os.write(fd, data[done : done + select.PIPE_BUF])
    except OSError:
        return len(data)
    return done


def _is_ready(poll: select.poll) -> bool:
    try:
        return bool(poll.poll(0))
    except OSError:
        # poll(2) fails where RLIMIT_NOFILE is 0; that message must still be written.
        return True
