"""The standard streams of a program: closed, full, or abandoned by their reader at any time."""

import sys
from typing import BinaryIO

from asrd import stdio
from asrd.exitcodes import Exit
from asrd.safe_text import one_line

# The program's name, with which its messages begin.
_program = "asrctl"


class OutputLost(Exception):
    """The output could not be written. `code` is the exit code for it."""

    def __init__(self, where: str, error: OSError) -> None:
        super().__init__(f"{where}: {error.strerror or error}")
        gone = isinstance(error, BrokenPipeError)
        self.code = Exit.BROKEN_PIPE if gone else Exit.OUTPUT_LOST


def prepare(program: str) -> None:
    """Must be called before the other functions; `program` begins the messages."""
    global _program
    _program = program
    stdio.open_missing()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a letter is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def open_stdin() -> BinaryIO:
    """Raises OSError for a stdin that was closed at the start."""
    if isinstance(sys.stdin, stdio.DevNull):
        raise OSError(None, "standard input is closed")
    return sys.stdin.buffer


def check_stdout() -> None:
    """Raises OutputLost for a stdout that was closed at the start."""
    if isinstance(sys.stdout, stdio.DevNull):
        raise OutputLost("standard output", OSError(None, "it is closed"))


def show(text: str) -> None:
    """Writes to stdout at once. Raises OutputLost, also if it was closed at the start."""
    check_stdout()
    mention(text)


def mention(text: str) -> None:
    """Like `show`, for commands whose answer is the exit code: a closed stdout is no loss there."""
    try:
        if text:
            # An unbuffered stdout (PYTHONUNBUFFERED) passes on a write of nothing, and /dev/full
            # refuses that, too.
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        stdio.silence(sys.stdout)
        raise OutputLost("standard output", error) from None


def complain(message: str) -> None:
    """Writes one line to stderr; never raises, since there is no other place for it."""
    hint(f"{_program}: {one_line(message)}\n")


def hint(text: str) -> None:
    """Writes to the terminal on stderr as it is; never raises."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        stdio.silence(sys.stderr)


def settle() -> None:
    """Writes what argparse left in the buffers. Raises OutputLost."""
    try:
        sys.stderr.flush()
    except OSError:
        stdio.silence(sys.stderr)
    mention("")
