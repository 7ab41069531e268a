"""The client's side of one connection, without I/O: which answer belongs to which call.

1. An answer with a `job_id` belongs to the open call of that id.
2. One without belongs to the oldest open call that waits for an event of that type.
3. An `error` without a `job_id` is about the connection: every open call gets it, and the
   conversation is over.
4. Answers without an open call (to an abandoned job, or of an unknown type) are dropped.
5. A malformed field ends the conversation with ProtocolError.
"""

import copy
import logging
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from asrd.errors import (
    AsrdError,
    ConnectionLost,
    FieldError,
    JobError,
    ProtocolError,
    job_error_type,
)
from asrd.wire import client_events, frames, strict_json
from asrd.wire.fields import parse_event

# `status` and `info` are passed on as they are: objects that only grow.
Answer = client_events.AnswerEvent | dict[str, Any]

# The last answer to each request of a client.
_LAST_ANSWERS = {
    "transcribe": "transcript",
    "cancel": "cancelled",
    "ping": "pong",
    "status": "status",
    "describe": "info",
}
_UNCHECKED = frozenset({"status", "info"})
_INTERMEDIATE = frozenset(
    {"accepted", "segment", "progress", "transcript-start", "transcript-chunk"}
)
# The daemon answers anything but a job within milliseconds, no matter what its workers do.
ANSWER_SECONDS = 10.0

_log = logging.getLogger("asrd.wire")
if "wire" in os.environ.get("ASRD_DEBUG", "").replace(" ", "").split(","):
    # The library's users need no set-up of logging for this.
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter("asrd wire %(message)s"))
    _log.addHandler(_handler)
    _log.setLevel(logging.DEBUG)
    _log.propagate = False


class AnswerDecoder(frames.Decoder):
    """Accepts asrd's answers: long transcripts, no payloads."""

    def __init__(self) -> None:
        super().__init__(frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False))

    def receive_eof(self) -> None:
        """A daemon killed in the middle of an event is a lost connection, not a protocol error."""


def silent(path: str, seconds: float) -> ConnectionLost:
    return ConnectionLost(f"the daemon at {path} did not answer within {seconds:g} s")


class Call:
    """One request and its answers that were not taken yet; `over` after the last answer."""

    def __init__(self, expects: str, job_id: str | None) -> None:
        self.expects = expects
        self.job_id = job_id
        self.over = False
        self.wake: Callable[[], object] = lambda: None
        self._answers: deque[Answer | Exception] = deque()

    def __repr__(self) -> str:
        return f"<Call {self.job_id or self.expects} untaken={len(self._answers)}>"

    def put(self, answer: Answer | Exception, *, last: bool) -> None:
        self.over = last
        self._answers.append(answer)
        self.wake()

    def take(self) -> Answer | None:
        """Returns the next answer, None if there is none yet.

        Raises JobError for an `error` event, ConnectionLost or ProtocolError after the end of the
        connection.
        """
        if not self._answers:
            return None
        answer = self._answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Conversation:
    """The calls of one connection to the daemon at `path`.

    `error` is None while the connection can be used.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.error: AsrdError | None = None
        self._jobs: dict[str, Call] = {}
        self._others: list[Call] = []

    def __repr__(self) -> str:
        state = "over" if self.error else "open"
        return f"<Conversation {state} jobs={len(self._jobs)} others={len(self._others)}>"

    @property
    def idle(self) -> bool:
        """True if no answer is due, so that another caller may use the connection."""
        return self.error is None and not self._jobs and not self._others

    def open(self, kind: str, data: dict[str, Any], fds: int = 0) -> Call:
        """Returns the call for a request with `fds` descriptors, which is to be sent next.

        Raises the error that ended the conversation, and ValueError for the id of a job that is
        not over.
        """
        if self.error is not None:
            raise copy.copy(self.error)
        call = Call(_LAST_ANSWERS[kind], data.get("job_id"))
        if call.job_id is None:
            self._others.append(call)
        elif call.job_id in self._jobs:
            raise ValueError(f"a job {call.job_id!r} is still open on this connection")
        else:
            self._jobs[call.job_id] = call
        _trace(">", kind, data, 0, fds)
        return call

    def receive(self, frame: frames.Frame) -> None:
        """Gives an answer to its call. Takes ownership of the frame."""
        _trace("<", frame.type, frame.data, frame.payload_length, len(frame.fds))
        frame.close()
        try:
            answer = _parse(frame)
        except FieldError as error:
            self.fail(ProtocolError(f"the daemon's {frame.type!r} is malformed: {error}"))
            return
        if isinstance(answer, JobError) and answer.job_id is None:
            self.fail(answer)
        elif answer is not None:
            self._deliver(frame.type, answer)

    def end(self, cause: OSError | ProtocolError | None) -> None:
        """Ends the conversation after a read returned nothing (None) or raised `cause`."""
        if isinstance(cause, ProtocolError):
            text = f"the program at {self.path} does not speak asrd's protocol: {cause}"
            self.fail(ProtocolError(text))
        else:
            why = "" if cause is None else f" ({cause.strerror or cause})"
            text = f"the daemon at {self.path} closed the connection before it answered{why}"
            self.fail(ConnectionLost(text))

    def fail(self, error: AsrdError) -> None:
        """Ends the conversation: every open call gets `error`, unless another one came first."""
        if self.error is not None:
            return
        self.error = error
        calls = [*self._jobs.values(), *self._others]
        self._jobs.clear()
        self._others.clear()
        for call in calls:
            # A copy each: an exception that several tasks raise must not share its traceback.
            call.put(copy.copy(error), last=True)

    def _deliver(self, kind: str, answer: Answer | JobError) -> None:
        job_id = getattr(answer, "job_id", None)
        last = kind not in _INTERMEDIATE
        if job_id is not None:
            call = self._jobs.pop(job_id, None) if last else self._jobs.get(job_id)
        else:
            call = next((call for call in self._others if call.expects == kind), None)
            if call is not None:
                self._others.remove(call)
        if call is not None:
            call.put(answer, last=last)


def _trace(arrow: str, kind: str, data: dict[str, Any], payload: int, fds: int) -> None:
    """Logs types, sizes and names, never a text."""
    if _log.isEnabledFor(logging.DEBUG):
        job_id, size = data.get("job_id"), len(strict_json.dumps(data))
        line = "%s %r job_id=%r data=%d payload=%d fds=%d"
        _log.debug(line, arrow, kind, job_id, size, payload, fds)


def _parse(frame: frames.Frame) -> Answer | JobError | None:
    if frame.type in _UNCHECKED:
        return frame.data
    answer: client_events.AnswerEvent | None = parse_event(
        client_events.TO_CLIENT, frame.type, frame.data
    )
    return _job_error(answer) if isinstance(answer, client_events.Error) else answer


def _job_error(error: client_events.Error) -> JobError:
    cls = job_error_type(error.code)
    # A code newer than this library would otherwise be lost.
    text = error.text if cls.code == error.code else f"{error.text} ({error.code})"
    return cls(
        text,
        job_id=error.job_id,
        trace_id=error.trace_id,
        retry_after_ms=error.retry_after_ms,
        phase=error.phase,
    )
