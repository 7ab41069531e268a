"""The exit codes of asrctl: one for each thing that a script may want to tell apart."""

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
    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    BUSY = 4
    DEADLINE = 5
    BAD_AUDIO = 6
    CRASHED = 7
    CANCELLED = 8
    UNAVAILABLE = 9
    NO_MODEL = 10
    OUT_OF_MEMORY = 11
    TOO_LARGE = 12
    OUTPUT_LOST = 13
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXIT_CODES = """\
exit codes:
  0    done
  1    failed otherwise; the sentence on stderr says how
  2    wrong usage, or the daemon refused a field of the request
  3    the daemon cannot be reached
  4    busy (or shutting down) for longer than the timeout
  5    deadline exceeded
  6    the file cannot be read or is not audio
  7    the worker crashed each time
  8    cancelled
  9    no worker can be had
  10   no worker has that model
  11   out of memory
  12   the audio is too large
  13   the output cannot be written
  130  interrupted by Ctrl-C (the job is cancelled)
  141  nobody reads the output any more
With several files it is the first failure's code.
"""

HEALTH_CODES = """\
exit codes:
  0  ok           every worker can take a job
  1  degraded     it serves, but something needs a look
  2  unavailable  no worker can take a job (or the wrong usage)
  3  unreachable  the daemon does not answer
Other codes say nothing about the daemon: 13 if the line cannot be written, 141 if nobody reads it,
130 after Ctrl-C. A closed standard output changes nothing.
"""

HEALTH = {"ok": 0, "degraded": 1, "unavailable": 2}

_OF_CODE = {
    Code.BUSY: Exit.BUSY,
    Code.SHUTTING_DOWN: Exit.BUSY,
    Code.UNAVAILABLE: Exit.UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: Exit.DEADLINE,
    Code.WORKER_CRASHED: Exit.CRASHED,
    Code.CANCELLED: Exit.CANCELLED,
    Code.BAD_REQUEST: Exit.USAGE,
    Code.BAD_AUDIO: Exit.BAD_AUDIO,
    Code.TOO_LARGE: Exit.TOO_LARGE,
    Code.MODEL_NOT_FOUND: Exit.NO_MODEL,
    Code.OUT_OF_MEMORY: Exit.OUT_OF_MEMORY,
    Code.INTERNAL: Exit.FAILED,
}


def exit_code(error: AsrdError) -> Exit:
    match error:
        case JobError():
            return _OF_CODE[error.code]
        case ConnectionLost():
            return Exit.UNREACHABLE
        case _:
            return Exit.FAILED
