"""The frame of a program for people: prepared streams, and each failure as one line and a code."""

from collections.abc import Callable

from asrd.asrctl import streams
from asrd.asrctl.streams import OutputLost, complain
from asrd.errors import AsrdError
from asrd.exitcodes import Exit, exit_code


def run(name: str, command: Callable[[], int]) -> int:
    """Runs a command, and returns the exit code of the program `name`."""
    streams.prepare(name)
    try:
        try:
            return command()
        finally:
            streams.settle()
    except OutputLost as lost:
        if lost.code is not Exit.BROKEN_PIPE:
            complain(str(lost))
        return lost.code
    except AsrdError as error:
        complain(str(error))
        return exit_code(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return Exit.INTERRUPTED
    except OSError as error:
        complain(str(error))
        return Exit.FAILED
