"""The standard streams of asrctl, which may be closed, full, or abandoned by their reader.

If descriptor 0, 1 or 2 is closed at the start, the next socket or file would get its number, and
text could be written into it. /dev/null takes its place.
"""

import io
import os
import sys
from typing import BinaryIO, TextIO

from asrd.exitcodes import Exit
from asrd.safe_text import one_line


class OutputLost(Exception):
    """The output could not be written. `code` is the exit code that says so."""

    def __init__(self, where: str, error: OSError) -> None:
        super().__init__(f"{where}: {error.strerror or error}")
        gone = isinstance(error, BrokenPipeError)
        self.code = Exit.BROKEN_PIPE if gone else Exit.OUTPUT_LOST


class _Nowhere(io.TextIOWrapper):
    """/dev/null in place of a stream that was closed at the start."""


def prepare() -> None:
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            fd = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
            file = open(fd, "rb" if name == "stdin" else "wb")  # noqa: SIM115
            setattr(sys, name, _Nowhere(file, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a letter is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def open_stdin() -> BinaryIO:
    """Raises OSError for a stdin that was closed at the start."""
    if isinstance(sys.stdin, _Nowhere):
        raise OSError(None, "standard input is closed")
    return sys.stdin.buffer


def check_stdout() -> None:
    """Raises OutputLost for a stdout that was closed at the start."""
    if isinstance(sys.stdout, _Nowhere):
        raise OutputLost("standard output", OSError(None, "it is closed"))


def show(text: str) -> None:
    """Writes to stdout at once. Raises OutputLost, also if stdout was closed at the start."""
    check_stdout()
    mention(text)


def mention(text: str) -> None:
    """Like `show`, for commands whose answer is the exit code: a closed stdout is no loss there."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise _lost(error) from None


def complain(sentence: str) -> None:
    """Writes one line to stderr; never raises, since there is no other place to complain."""
    try:
        sys.stderr.write(f"asrctl: {one_line(sentence)}\n")
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def settle() -> None:
    """Writes what is still buffered. Raises OutputLost."""
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _lost(error) from None


def _lost(error: OSError) -> OutputLost:
    _silence(sys.stdout)
    return OutputLost("standard output", error)


def _silence(stream: TextIO) -> None:
    """Leads a broken stream to /dev/null. Otherwise the interpreter's last flush would fail, print
    a traceback and change the exit code to 120."""
    fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, stream.fileno())
    os.close(fd)
