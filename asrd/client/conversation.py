"""The client's side of one connection, without I/O: which answer belongs to which call.

1. An answer with a `job_id` belongs to the open call of that id.
2. One without belongs to the oldest open call that waits for an event of that type.
3. An `error` without a `job_id` is about the connection: every open call gets it, and the
   conversation is over.
4. What nobody waits for (an answer to an abandoned job, an unknown event) is dropped.
5. A field that is not as promised ends the conversation with ProtocolError.
"""

import copy
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
from asrd.wire import frames
from asrd.wire.client_events import (
    TO_CLIENT,
    Accepted,
    CancelAnswer,
    Error,
    Pong,
    Progress,
    SegmentDecoded,
    Transcript,
)
from asrd.wire.fields import parse_event

Answer = (
    Accepted | SegmentDecoded | Progress | Transcript | CancelAnswer | Pong | dict[str, Any]
)  # `status` and `info` come as they are: objects that only grow

# Whatever else comes for a call is its last answer.
_ON_THE_WAY = frozenset({"accepted", "segment", "progress"})
_PLAIN = frozenset({"status", "info"})


class AnswerDecoder(frames.Decoder):
    """Takes what asrd sends: long transcripts, no payloads."""

    def __init__(self) -> None:
        super().__init__(frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False))

    def receive_eof(self) -> None:
        """A daemon that is killed in mid-sentence is a lost connection, not a false word."""


def lost(path: str, error: OSError | None = None) -> ConnectionLost:
    why = "" if error is None else f" ({error.strerror or error})"
    return ConnectionLost(f"the daemon at {path} went away before it had answered{why}")


def silent(path: str, seconds: float) -> ConnectionLost:
    return ConnectionLost(f"the daemon at {path} did not answer within {seconds:g} s")


def garbage(path: str, error: ProtocolError) -> ProtocolError:
    return ProtocolError(f"what answers at {path} does not speak asrd's protocol: {error}")


class Call:
    """One request; its answers wait here until they are taken. `over` once the last has come."""

    def __init__(self, expects: str, job_id: str | None) -> None:
        self.expects = expects
        self.job_id = job_id
        self.over = False
        self.wake: Callable[[], object] = lambda: None
        self._answers: deque[Answer | AsrdError] = deque()

    def __repr__(self) -> str:
        return f"<Call {self.job_id or self.expects} untaken={len(self._answers)}>"

    def put(self, answer: Answer | AsrdError, *, last: bool) -> None:
        self.over = last
        self._answers.append(answer)
        self.wake()

    def take(self) -> Answer | None:
        """The next answer, None if there is none yet.

        Raises JobError for an `error` event, ConnectionLost and ProtocolError for the
        connection's end.
        """
        if not self._answers:
            return None
        answer = self._answers.popleft()
        if isinstance(answer, AsrdError):
            raise answer
        return answer


class Conversation:
    """`error` is None while the connection can be used."""

    def __init__(self) -> None:
        self.error: AsrdError | None = None
        self._jobs: dict[str, Call] = {}
        self._others: list[Call] = []

    def __repr__(self) -> str:
        state = "over" if self.error else "open"
        return f"<Conversation {state} jobs={len(self._jobs)} others={len(self._others)}>"

    @property
    def idle(self) -> bool:
        """Whether no answer is owed, so that another caller may have the connection."""
        return self.error is None and not self._jobs and not self._others

    def open(self, expects: str, job_id: str | None = None) -> Call:
        """A new call, to be made before its request is sent.

        `expects` is the type of its last answer. Raises whatever ended the conversation, and
        ValueError for the id of a job that is not over.
        """
        if self.error is not None:
            raise copy.copy(self.error)
        call = Call(expects, job_id)
        if job_id is None:
            self._others.append(call)
        elif job_id in self._jobs:
            raise ValueError(f"a job {job_id!r} is still open on this connection")
        else:
            self._jobs[job_id] = call
        return call

    def receive(self, event: frames.Frame) -> None:
        """Give an event to whom it belongs; takes the event over."""
        event.close()
        try:
            answer = _parse(event)
        except FieldError as error:
            self.fail(ProtocolError(f"the daemon's {event.type!r} is malformed: {error}"))
            return
        if isinstance(answer, Error):
            failure = _job_error(answer)
            if answer.job_id is None:
                self.fail(failure)
            else:
                self._deliver(event.type, failure)
        elif answer is not None:
            self._deliver(event.type, answer)

    def fail(self, error: AsrdError) -> None:
        """The connection is of no more use; every open call is told why."""
        if self.error is not None:
            return
        self.error = error
        calls = [*self._jobs.values(), *self._others]
        self._jobs.clear()
        self._others.clear()
        for call in calls:
            # A copy each: what is raised in several tasks must not share its traceback.
            call.put(copy.copy(error), last=True)

    def _deliver(self, kind: str, answer: Answer | JobError) -> None:
        job_id = getattr(answer, "job_id", None)
        last = kind not in _ON_THE_WAY
        if job_id is not None:
            call = self._jobs.pop(job_id, None) if last else self._jobs.get(job_id)
        else:
            call = next((call for call in self._others if call.expects == kind), None)
            if call is not None:
                self._others.remove(call)
        if call is not None:
            call.put(answer, last=last)


def _parse(event: frames.Frame) -> Answer | Error | None:
    if event.type in _PLAIN:
        return event.data
    answer: Answer | Error | None = parse_event(TO_CLIENT, event.type, event.data)
    return answer


def _job_error(error: Error) -> JobError:
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
