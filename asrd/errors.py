"""The list of error codes, and the exceptions: all of them are AsrdError.

JobError has one subclass for each code; every other class is a direct subclass of AsrdError.
"""

from enum import StrEnum


class Code(StrEnum):
    """The reason why a job has no transcript. Clients match on these codes: the list only grows."""

    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    WORKER_CRASHED = "worker-crashed"
    CANCELLED = "cancelled"
    BAD_REQUEST = "bad-request"
    BAD_AUDIO = "bad-audio"
    TOO_LARGE = "too-large"
    MODEL_NOT_FOUND = "model-not-found"
    OUT_OF_MEMORY = "out-of-memory"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL = "internal"

    @property
    def retryable(self) -> bool:
        """True if the same request may succeed later without a fix."""
        return self in _RETRYABLE


class Cause(StrEnum):
    """The reason why a worker's process ended, or could not start. The list only grows."""

    SIGNAL = "signal"
    NO_PROGRESS = "no-progress"
    OUT_OF_MEMORY = "out-of-memory"
    SELF_TEST = "self-test"
    POISONED = "poisoned"
    CANNOT_LOAD = "cannot-load"
    IGNORED_CANCEL = "ignored-cancel"
    PROTOCOL = "protocol"
    EXIT = "exit"
    UNKNOWN = "unknown"


class WarningCode(StrEnum):
    """The kinds of warnings of a good transcript. The list only grows."""

    AUDIO_INCOMPLETE = "audio-incomplete"
    AUDIO_DAMAGED = "audio-damaged"
    SAMPLES_REPLACED = "samples-replaced"
    OTHER_TRACKS = "other-tracks"
    TRACK_SKIPPED = "track-skipped"
    CHANNELS_CANCEL_OUT = "channels-cancel-out"
    HINTS_CUT = "hints-cut"


_RETRYABLE = frozenset({Code.BUSY, Code.DEADLINE_EXCEEDED, Code.OUT_OF_MEMORY, Code.SHUTTING_DOWN})


class AsrdError(Exception):
    """The base class of asrd's exceptions."""


class ConfigError(AsrdError):
    """A wrong setting. The text names the file, variable or flag, the key and the problem."""


class ProtocolError(AsrdError):
    """The peer broke the framing: the connection can't be used any more."""


class FieldError(AsrdError):
    """A wrong field of an event with correct framing, or of a settings file."""

    def __init__(self, field: str, problem: str) -> None:
        # Exceptions are copied and unpickled by calling the class with `args`.
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class ConnectionLost(AsrdError):
    """The daemon can't be reached, or the connection ended before the answer."""


class LoadError(AsrdError):
    """A model can't be loaded as configured: only a change can help.

    Attributes: self_test (True if it gives wrong text for the known recording).
    """

    def __init__(self, text: str, self_test: bool = False) -> None:
        super().__init__(text)
        self.self_test = self_test


class Poisoned(AsrdError):
    """The engine is unusable in this process (a CUDA error is sticky, or the text is
    wrong): the process must end. Attributes: self_test (as for LoadError)."""

    def __init__(self, text: str, self_test: bool = False) -> None:
        super().__init__(text)
        self.self_test = self_test


class JobError(AsrdError):
    """The final answer to a job that has no transcript.

    Attributes: code; text (one sentence); job_id and trace_id (None if the job had none);
    retry_after_ms (for `busy`: the delay before a retry); phase (for `deadline-exceeded`: `queue`
    or `run`).
    """

    code = Code.INTERNAL

    def __init__(
        self,
        text: str,
        *,
        job_id: str | None = None,
        trace_id: str | None = None,
        retry_after_ms: int | None = None,
        phase: str | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.job_id = job_id
        self.trace_id = trace_id
        self.retry_after_ms = retry_after_ms
        self.phase = phase

    @property
    def retryable(self) -> bool:
        return self.code.retryable


class Busy(JobError):
    """A queue or another bound is full; `retry_after_ms` says when to come back."""

    code = Code.BUSY


class Unavailable(JobError):
    """No worker can serve: none is configured, none can load its model, or a setting is wrong."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(JobError):
    """The job waited or ran longer than allowed; `phase` is `queue` or `run`."""

    code = Code.DEADLINE_EXCEEDED


class WorkerCrashed(JobError):
    """The worker process died each time it ran the job."""

    code = Code.WORKER_CRASHED


class Cancelled(JobError):
    """The client cancelled the job, or disconnected."""

    code = Code.CANCELLED


class BadRequest(JobError):
    """An event or a field is malformed; the text names it."""

    code = Code.BAD_REQUEST


class BadAudio(JobError):
    """The audio can't be decoded, is empty or cut short, or is no regular file."""

    code = Code.BAD_AUDIO


class TooLarge(JobError):
    """The audio exceeds a limit of bytes or seconds."""

    code = Code.TOO_LARGE


class ModelNotFound(JobError):
    """No worker has that model."""

    code = Code.MODEL_NOT_FOUND


class OutOfMemory(JobError):
    """The device ran out of memory for this job."""

    code = Code.OUT_OF_MEMORY


class ShuttingDown(JobError):
    """The daemon is stopping; connect again."""

    code = Code.SHUTTING_DOWN


class InternalError(JobError):
    """A bug in asrd; the log has the traceback under the job's id."""

    code = Code.INTERNAL


_BY_CODE: dict[Code, type[JobError]] = {cls.code: cls for cls in JobError.__subclasses__()}


def job_error_type(code: str) -> type[JobError]:
    """Returns the exception for a code, InternalError for a code newer than this library."""
    try:
        return _BY_CODE[Code(code)]
    except ValueError:
        return InternalError
