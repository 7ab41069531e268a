"""The three standard descriptors, of which any may be closed, broken or without a reader.

`asrd run 2>&1 | head -1`, a closed terminal, `2>&-`, a pager that is paused: no message is worth
an accepted job, so nothing here raises because of its stream, and nothing waits for a reader.
"""

import os
import select
import sys
from typing import TextIO


def open_missing() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed.

    Else the next socket would get that number, and be what a child process calls its stderr. To be
    called before anything else is opened.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, so this very one; a standard descriptor is inherited.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115


def say(text: str) -> None:
    """Write a line to stderr if it can be written now."""
    write_line(sys.stderr, text)


def write_line(stream: TextIO, text: str) -> bool:
    """Write a line if the stream takes it now; false if it is cut off or lost."""
    try:
        fd = stream.fileno()
    except (OSError, ValueError):
        # Not a real one (a test's), so nobody can let us wait.
        stream.write(f"{text}\n")
        return True
    data = f"{text}\n".encode("utf-8", "backslashreplace")
    return write(fd, data) == len(data)


def write(fd: int, data: bytes) -> int:
    """Write what the descriptor takes without waiting, and return how much that was; a broken one
    takes everything."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    done = 0
    try:
        while done < len(data) and _is_ready(poll):
            # Of a pipe that is ready no more than this is known to fit.
            done += os.write(fd, data[done : done + select.PIPE_BUF])
    except OSError:
        return len(data)
    return done


def _is_ready(poll: select.poll) -> bool:
    try:
        return bool(poll.poll(0))
    except OSError:
        # Where no more descriptors are allowed, poll(2) fails; that must not go unsaid.
        return True
