"""One job as its client requested it, and the data of the events that answer it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from asrd.errors import BadAudio, Code, FieldError, JobError, TooLarge
from asrd.front.reporting.crashes import JobRef
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.job import Job, Needs
from asrd.wire import strict_json
from asrd.wire.client_events import Error, Transcribe
from asrd.wire.fds import OwnedFd
from asrd.wire.fields import dump
from asrd.wire.options import PROMPT_MAX, Options
from asrd.wire.peer import Peer, User
from asrd.wire.records import SENTENCE_MAX, AudioFormat, Checkpoint
from asrd.wire.worker_events import Done, JobProgress, JobWindow


class JobAudio(Protocol):
    """The audio of a job: `size` bytes behind a descriptor."""

    size: int
    fd: OwnedFd

    def close(self) -> None: ...


class Client(Protocol):
    """The connection that a request came from; each call answers it at once."""

    peer: Peer

    def accepted(self, request: "Request", queue_depth: int) -> None: ...
    def segment(self, request: "Request", index: int, segment: dict[str, Any]) -> None: ...
    def progress(self, request: "Request", event: JobProgress) -> None: ...
    def finished(self, request: "Request", transcript: bytes) -> None: ...
    def failed(self, request: "Request", failure: Failure) -> None: ...
    def cancel(self, job_id: str, failure: Failure) -> bool: ...


class Text(Protocol):
    """The text of a live stream (asrd.front.live.text)."""

    exact: bool
    rest: float

    def whole(self, rest: bytes) -> bytes | Failure: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class Finished:
    """The finished part of one transcript: its text in UTF-8, its `count` segments as the inside of
    a JSON list."""

    __slots__ = ("count", "segments", "text")

    def __init__(self) -> None:
        self.text = bytearray()
        self.segments = bytearray()
        self.count = 0

    @property
    def size(self) -> int:
        return len(self.text) + len(self.segments)

    def add(self, text: str, segments: Sequence[dict[str, Any]]) -> None:
        self.text += text.encode()
        if segments:
            self.segments += b"," if self.count else b""
            self.segments += strict_json.dumps(segments)[1:-1]
            self.count += len(segments)


@dataclass(eq=False, slots=True)
class Request:
    """Owns `audio` until it is finished: a retry needs it again, and goes on from `checkpoint`.

    `plain`: the request uses Wyoming's own fields only. It gets nothing but its answer, and an
    error ends the connection: some clients wait for a transcript or the end, and know no error.
    """

    client: Client
    job: Job
    job_id: str
    trace_id: str | None
    audio: JobAudio
    format: AudioFormat
    options: Options
    max_audio_seconds: float
    stream: bool
    plain: bool
    # Of a live stream: the text of which this is the rest.
    text: Text | None = None
    finished: Finished = field(default_factory=Finished)
    checkpoint: Checkpoint | None = None

    def close(self) -> None:
        """The request has its answer."""
        self.audio.close()
        if self.text is not None:
            self.text.close()

    @property
    def owner(self) -> Peer:
        return self.client.peer

    @property
    def user(self) -> User:
        return self.job.user

    def why_wrong(self, window: JobWindow) -> str | None:
        """Returns the reason why its worker must not send this window, None if it may. A retry goes
        on from there: it must repeat and skip nothing."""
        count = self.finished.count + len(window.segments)
        if window.checkpoint.segments != count:
            return f"checkpoint.segments: {window.checkpoint.segments}, but {count} were sent"
        if self.checkpoint is not None and window.checkpoint.frame < self.checkpoint.frame:
            return f"checkpoint.frame: {window.checkpoint.frame} is before the last one"
        return None

    def ran(self) -> JobRef:
        """Returns a record of this attempt, for the report of a crash."""
        return JobRef(
            job_id=self.job_id,
            owner=self.owner,
            audio_bytes=self.job.size,
            audio_seconds=self.job.seconds or None,
            attempt=self.job.attempts,
            trace_id=self.trace_id,
            log_fields=self.log_fields,
        )

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields of each log entry about this job."""
        fields: dict[str, object] = {"ASRD_JOB_ID": self.job_id, **self.owner.log_fields}
        if self.trace_id is not None:
            fields["ASRD_TRACE_ID"] = self.trace_id
        if self.job.user != self.owner.user:
            fields["ASRD_USER"] = self.job.user
        return fields


def make_request(
    client: Client,
    transcribe: Transcribe,
    options: Options,
    format_: AudioFormat,
    audio: JobAudio,
    now: float,
    max_audio_seconds: float,
    text: Text | None = None,
    step: bool = False,
) -> Request:
    """Checks the audio's length against its format and the limit. Raises BadAudio, TooLarge."""
    try:
        seconds = format_.seconds(audio.size)
    except FieldError as error:
        raise BadAudio(str(error)) from None
    if seconds is not None and seconds > max_audio_seconds:
        raise TooLarge(f"audio: {seconds:.0f} s are over the limit of {max_audio_seconds:.0f} s")
    name = transcribe.user
    job = Job(
        user=client.peer.user if name is None else client.peer.on_behalf_of(name),
        arrival=now,
        # Some clients send an empty name for none.
        needs=needs_of(transcribe.name or None, options),
        size=audio.size,
        seconds=seconds or 0.0,
        timeout=None if transcribe.timeout_ms is None else transcribe.timeout_ms / 1000,
        step=step,
        stranger=client.peer.uid is None,
    )
    request = Request(
        client=client,
        job=job,
        job_id=transcribe.job_id or os.urandom(8).hex(),
        trace_id=transcribe.trace_id,
        audio=audio,
        format=format_,
        options=options,
        max_audio_seconds=max_audio_seconds,
        # Live text has come as chunks; the last job would repeat some of it.
        stream=transcribe.stream and (text is None or text.exact),
        plain=is_plain(transcribe),
        text=text,
    )
    job.request = request
    return request


def needs_of(model: str | None, options: Options) -> Needs:
    return Needs(
        model=model,
        language=options.language,
        translate=options.task == "translate",
        word_timestamps=bool(options.word_timestamps),
        multilingual=bool(options.multilingual),
        speech=options.task == "speech",
        speakers=options.task == "speakers",
    )


def is_plain(transcribe: Transcribe) -> bool:
    """Returns True if the request uses nothing but Wyoming's own fields."""
    asks = transcribe.stream or transcribe.live or transcribe.end_of_speech_ms is not None
    return transcribe.audio is None and transcribe.job_id is None and not asks


def with_hints(transcribe: Transcribe, options: Options) -> Options:
    """Returns the options with Wyoming's names and terms as hotwords, as many as fit."""
    if options.hotwords is not None:
        return options
    hints = ""
    for hint in transcribe.transcript_names + transcribe.transcript_terms:
        longer = f"{hints}, {hint}" if hints else hint
        if len(longer) > PROMPT_MAX:
            break
        hints = longer
    return replace(options, hotwords=hints) if hints else options


def transcript(request: Request, done: Done, model: str | None, now: float) -> bytes:
    """The data of the `transcript` event, as JSON; `now` in seconds of the scheduler's clock."""
    job, finished = request.job, request.finished
    data = {
        "text": finished.text.decode().strip(),
        "language": done.language,
        "job_id": request.job_id,
        **({"trace_id": request.trace_id} if request.trace_id is not None else {}),
        "language_probability": done.language_probability,
        "duration_ms": round(done.audio_seconds * 1000),
        "queue_ms": round((job.started_at - job.arrival) * 1000),
        "run_ms": round((now - job.started_at) * 1000),
        "worker": job.worker,
        "attempts": job.attempts,
        "model": model,
        "warnings": dump(done.warnings),
    }
    return strict_json.dumps(data)[:-1] + b',"segments":[' + finished.segments + b"]}"


def why_refused(kind: str, problem: FieldError | JobError) -> Failure:
    """Returns the refusal of an event of this kind."""
    if isinstance(problem, FieldError):
        return Failure(Code.BAD_REQUEST, f"{kind}: {problem}")
    text = f"{kind}: {problem.text}"
    return Failure(problem.code, text, retry_after_ms=problem.retry_after_ms)


def error(failure: Failure, job_id: str | None = None, trace_id: str | None = None) -> Error:
    """The `error` event. Without `job_id` it is about the connection."""
    return Error(
        text=failure.text[:SENTENCE_MAX],
        code=failure.code,
        job_id=job_id,
        trace_id=trace_id,
        retryable=failure.code.retryable,
        retry_after_ms=failure.retry_after_ms,
        phase=failure.phase,
    )
