"""The closed list of error codes and the one tree of exceptions.

AsrdError
├── ConfigError         a settings file, variable or flag is wrong; names it
├── ProtocolError       the peer broke the framing; the connection can't go on
├── FieldError          one field is wrong, the framing is intact; names the field
├── ConnectionLost      the daemon can't be reached, or went away in the middle
├── LoadError           a model can't be loaded as it is configured; says why in one sentence
├── Poisoned            the engine's process is of no more use (a CUDA error is sticky)
└── JobError            the honest answer to one job; one subclass per code
    ├── Busy, Unavailable, DeadlineExceeded, WorkerCrashed, Cancelled, BadRequest, BadAudio,
    └── TooLarge, ModelNotFound, OutOfMemory, ShuttingDown, InternalError
"""

from enum import StrEnum


class Code(StrEnum):
    """Why a job has no transcript. A client may match on these: the list only ever grows."""

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
        """Whether the same request may succeed later without anybody mending anything."""
        return self in _RETRYABLE


class WarningCode(StrEnum):
    """The kinds of warnings that come with a good transcript; the list only grows."""

    AUDIO_INCOMPLETE = "audio-incomplete"
    AUDIO_DAMAGED = "audio-damaged"
    SAMPLES_REPLACED = "samples-replaced"
    OTHER_TRACKS = "other-tracks"
    TRACK_SKIPPED = "track-skipped"
    CHANNELS_CANCEL_OUT = "channels-cancel-out"
    HINTS_CUT = "hints-cut"


_RETRYABLE = frozenset({Code.BUSY, Code.DEADLINE_EXCEEDED, Code.OUT_OF_MEMORY, Code.SHUTTING_DOWN})


class AsrdError(Exception):
    """Whatever asrd raises on purpose."""


class ConfigError(AsrdError):
    """The text names the file (or variable, or flag), the key and what is wrong with it."""


class ProtocolError(AsrdError):
    """The peer broke the framing; nothing that follows on this connection can be trusted."""


class FieldError(AsrdError):
    """A field of an otherwise well-framed event is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        # Exceptions are copied and unpickled by calling the class with `args`.
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class ConnectionLost(AsrdError):
    """There is no daemon at the socket, or the connection ended before the answer."""


class LoadError(AsrdError):
    """A model can't be loaded as it is configured: trying again without a change is no use."""


class Poisoned(AsrdError):
    """Every later call of the engine in this process would fail: it must end, not only the job."""


class JobError(AsrdError):
    """A job's terminal answer other than a transcript.

    Attributes: code; text (one sentence); job_id, trace_id (None where the job never had one);
    retry_after_ms (for `busy`: when to try again); phase (for `deadline-exceeded`:
    `queue` or `run`).
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
    """No worker can serve: none is configured, or none can load its model."""

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
    """The exception for a code; a code newer than this library is told as InternalError."""
    try:
        return _BY_CODE[Code(code)]
    except ValueError:
        return InternalError
