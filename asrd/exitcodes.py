"""The exit codes of all programs: one for each outcome that a script or a service manager handles
differently."""

from enum import IntEnum

from asrd.errors import AsrdError, Code, ConnectionLost, JobError

# asr-worker and asrd. The units (SuccessExitStatus=, RestartPreventExitStatus=), the script
# systemd/restart-backoff and the supervisor of `asrd run` act on these numbers.
EXIT_STOPPED = 0
EXIT_FAILED = 1
EXIT_BROKEN = 70
# Idle: the worker gave its memory back; the next connection starts it again.
EXIT_IDLE = 77
# EX_CONFIG of sysexits.h: starting again without a change of the settings would fail again.
EXIT_CANNOT_LOAD = EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


class Exit(IntEnum):
    """The exit codes of asrctl, with their lines in --help and the error codes behind them."""

    OK = 0, "done"
    FAILED = 1, "another failure; the message on stderr gives the reason", Code.INTERNAL
    USAGE = 2, "wrong usage, or the daemon refused a field of the request", Code.BAD_REQUEST
    UNREACHABLE = 3, "the daemon cannot be reached"
    BUSY = 4, "busy (or shutting down) until the timeout", Code.BUSY, Code.SHUTTING_DOWN
    DEADLINE = 5, "deadline exceeded", Code.DEADLINE_EXCEEDED
    BAD_AUDIO = 6, "the file cannot be read or is not audio", Code.BAD_AUDIO
    CRASHED = 7, "the worker crashed on each attempt", Code.WORKER_CRASHED
    CANCELLED = 8, "cancelled", Code.CANCELLED
    UNAVAILABLE = 9, "no worker is available", Code.UNAVAILABLE
    NO_MODEL = 10, "no worker has that model", Code.MODEL_NOT_FOUND
    OUT_OF_MEMORY = 11, "out of memory", Code.OUT_OF_MEMORY
    TOO_LARGE = 12, "the audio is too large", Code.TOO_LARGE
    OUTPUT_LOST = 13, "the output cannot be written"
    INTERRUPTED = EXIT_INTERRUPTED, "interrupted by Ctrl-C (the job is cancelled)"
    BROKEN_PIPE = 141, "nobody reads the output any more"

    meaning: str
    errors: tuple[Code, ...]

    def __new__(cls, number: int, meaning: str, *errors: Code) -> "Exit":
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        member.errors = errors
        return member


EXIT_CODES = (
    "exit codes:\n"
    + "".join(f"  {code:<5}{code.meaning}\n" for code in Exit)
    + "With several files, the code is that of the first failure.\n"
)

HEALTH = {"ok": 0, "degraded": 1, "unavailable": 2}
HEALTH_CODES = """\
exit codes:
  0  ok           every worker can take a job
  1  degraded     it serves requests, but something needs attention
  2  unavailable  no worker can take a job (or wrong usage)
  3  unreachable  the daemon does not answer
Other codes say nothing about the daemon: 13 if the line cannot be written, 141 if nobody reads it,
130 after Ctrl-C. A closed standard output changes nothing.
"""


def exit_code(error: AsrdError) -> Exit:
    """Returns the code with which asrctl ends because of an error."""
    match error:
        case JobError():
            return next(code for code in Exit if error.code in code.errors)
        case ConnectionLost():
            return Exit.UNREACHABLE
        case _:
            return Exit.FAILED
