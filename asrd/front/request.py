"""One job as its client asked for it, and the answers as the wire tells them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asrd.errors import BadAudio, FieldError, TooLarge
from asrd.front.reporting.crashes import JobRef
from asrd.front.scheduling.actions import Failure
from asrd.front.scheduling.job import Job, Needs
from asrd.wire.client_events import Error, Transcribe, Transcript
from asrd.wire.fields import dump
from asrd.wire.peer import Peer
from asrd.wire.records import PROMPT_MAX, AudioFormat, Options
from asrd.wire.worker_events import Done

if TYPE_CHECKING:
    from asrd.front.session import Session
    from asrd.front.spool import JobAudio


@dataclass(eq=False, slots=True)
class Request:
    """Owns `audio` until it is finished: a retry needs it again.

    `plain`: of a pure Wyoming conversation, which gets nothing but its answer, and ends after an
    error: some clients wait for a transcript or the end of the connection, and know no error.
    """

    session: "Session"
    job: Job
    job_id: str
    trace_id: str | None
    audio: "JobAudio"
    format: AudioFormat
    options: Options
    stream: bool
    plain: bool

    @property
    def owner(self) -> Peer:
        return self.session.peer

    def ran(self) -> JobRef:
        """A record of this attempt, for the report of a death."""
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
        """The fields that every log line of this job carries."""
        fields: dict[str, object] = {"ASRD_JOB_ID": self.job_id, **self.owner.log_fields}
        if self.trace_id is not None:
            fields["ASRD_TRACE_ID"] = self.trace_id
        return fields


def make_request(
    session: "Session",
    asked: Transcribe,
    options: Options,
    format_: AudioFormat,
    audio: "JobAudio",
    fresh_id: str,
    now: float,
    max_audio_seconds: float,
) -> Request:
    """Check the audio's length against its format and the limit; `fresh_id` is the job's if the
    client gave it none.

    Raises BadAudio, TooLarge.
    """
    try:
        seconds = format_.seconds(audio.size)
    except FieldError as error:
        raise BadAudio(str(error)) from None
    if seconds is not None and seconds > max_audio_seconds:
        raise TooLarge(f"audio: {seconds:.0f} s are over the limit of {max_audio_seconds:.0f} s")
    job = Job(
        user=session.peer.user,
        arrival=now,
        needs=Needs(
            # Some clients send an empty name for none.
            model=asked.name or None,
            language=options.language,
            translate=options.task == "translate",
            word_timestamps=bool(options.word_timestamps),
        ),
        size=audio.size,
        seconds=seconds or 0.0,
        timeout=None if asked.timeout_ms is None else asked.timeout_ms / 1000,
    )
    request = Request(
        session=session,
        job=job,
        job_id=asked.job_id or fresh_id,
        trace_id=asked.trace_id,
        audio=audio,
        format=format_,
        options=options,
        stream=asked.stream,
        plain=is_plain(asked),
    )
    job.request = request
    return request


def is_plain(asked: Transcribe) -> bool:
    """True if the request uses nothing but fields that Wyoming has."""
    return asked.audio is None and asked.job_id is None and not asked.stream


def with_hints(asked: Transcribe, options: Options) -> Options:
    """Wyoming's names and terms as Whisper's hotwords: as many as fit, none of them cut."""
    if options.hotwords is not None:
        return options
    hints = ""
    for hint in asked.transcript_names + asked.transcript_terms:
        longer = f"{hints}, {hint}" if hints else hint
        if len(longer) > PROMPT_MAX:
            break
        hints = longer
    return replace(options, hotwords=hints) if hints else options


def transcript(request: Request, done: Done, model: str | None, now: float) -> dict[str, Any]:
    """The `transcript` event's data; `now` in seconds of the scheduler's clock."""
    job = request.job
    return {
        "text": done.text,
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
        "segments": done.segments,
        "warnings": dump(done.warnings),
    }


def nothing_said(options: Options) -> dict[str, Any]:
    """The `transcript` event's data for a recording without any audio."""
    return dict(dump(Transcript(text="", language=options.language)))


def error(failure: Failure, job_id: str | None, trace_id: str | None) -> dict[str, Any]:
    """The `error` event's data."""
    return dict(
        dump(
            Error(
                text=failure.text[:4096],
                code=failure.code,
                job_id=job_id,
                trace_id=trace_id,
                retryable=failure.code.retryable,
                retry_after_ms=failure.retry_after_ms,
                phase=failure.phase,
            )
        )
    )
