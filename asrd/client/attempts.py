"""One `transcribe` call over all its attempts, without I/O and without a clock.

    refused (`busy`, `shutting-down`)    tries again after `retry_after_ms`, or when another job of
                                         the client has ended
    expired in the daemon's queue        without a timeout: as if refused
    connection lost during a job         submits it again, twice at most: a job has no side effects
    no daemon after a lost connection    waits for RETURN_SECONDS: the daemon may be restarting
    anything else                        is the answer

All attempts together end within the caller's timeout. Without a timeout, a run may take as long as
the daemon allows, and refusals are waited out while the daemon makes progress on other jobs of the
client, and for BUSY_TIMEOUT_SECONDS more (asrd.client.jobs).

A job that is submitted again begins anew. A stream drops the segments that it has yielded already.
If one of them is different now, it ends with ConnectionLost: it never mixes two transcripts.
"""

import math
import random
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from asrd import errors
from asrd.client.conversation import Answer
from asrd.client.jobs import Job, Jobs
from asrd.wire import client_events
from asrd.wire.fields import dump, parse, unknown_keys
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat, Segment

T = TypeVar("T")

# How long a call without a timeout waits for the daemon to accept its job, after the last progress.
BUSY_TIMEOUT_SECONDS = 60.0
# How long a call waits for a daemon that was there before.
RETURN_SECONDS = 10.0
RESUBMISSIONS = 2
# How much later than the timeout the daemon's own `deadline-exceeded` may arrive.
GRACE_SECONDS = 2.0
_SHORTEST_PAUSE, _FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1, 5.0
# The pause is doubled so often at most. It is _LONGEST_PAUSE by then.
_DOUBLINGS = 6
_LONGEST_TIMEOUT = 24 * 3600.0


class CommonOptions(TypedDict, total=False):
    """The options of all jobs; the daemon's defaults apply to absent ones.

    language to window: faster-whisper's options of the same names, and asrd's own: see
    asrd.wire.options, or docs/protocol.md.
    model: the name of a model that a worker has loaded.
    job_id, trace_id: names for the job in logs and in the daemon's status.
    user: for a gateway (docs/settings.md), the user that it speaks for.
    timeout: in seconds, for all waiting, running and retrying together.
    sample_rate: in Hz, 16000 by default; channels: interleaved, 1 by default. For PCM only.
    """

    language: str | None
    task: str
    beam_size: int | None
    initial_prompt: str | None
    condition_on_previous_text: bool | None
    hotwords: str | None
    temperature: float | tuple[float, ...] | list[float] | None
    vad_filter: bool | None
    word_timestamps: bool | None
    audio_track: int | str | None
    require_complete: bool | None
    split_channels: bool | None
    include_tokens: bool | None
    num_speakers: int | None
    patience: float | None
    best_of: int | None
    length_penalty: float | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    compression_ratio_threshold: float | None
    log_prob_threshold: float | None
    no_speech_threshold: float | None
    hallucination_silence_threshold: float | None
    prompt_reset_on_temperature: float | None
    prefix: str | None
    suppress_blank: bool | None
    suppress_tokens: tuple[int, ...] | list[int] | None
    without_timestamps: bool | None
    max_initial_timestamp: float | None
    prepend_punctuations: str | None
    append_punctuations: str | None
    max_new_tokens: int | None
    chunk_length: int | None
    clip_timestamps: tuple[float, ...] | list[float] | None
    multilingual: bool | None
    languages: tuple[str, ...] | list[str] | None
    language_detection_threshold: float | None
    language_detection_segments: int | None
    vad_parameters: dict[str, float] | None
    batch_size: int | None
    window: str | None
    model: str | None
    job_id: str | None
    trace_id: str | None
    user: str | None
    timeout: float | None
    sample_rate: int
    channels: int


class JobOptions(CommonOptions, total=False):
    """The options of `transcribe` and `stream`: CommonOptions, and the following.

    encoding: `file` (any container that PyAV reads; the default), `pcm_s16le` or `pcm_f32le`.
    on_progress: called with each Progress; a job that is submitted again starts from 0.
    """

    encoding: str | None
    on_progress: Callable[[client_events.Progress], object] | None


class LiveOptions(CommonOptions, total=False):
    """The options of `live`: CommonOptions, and the following. `timeout` begins at the end of the
    audio; the daemon takes at most 2 channels and 48000 Hz.

    live_step_ms: the text so far is decoded again after so much new audio; 1000 by default.
    final: `live` (the default: the transcript is the text that the stream has yielded) or `exact`
        (the whole recording is decoded once more).
    end_of_speech_ms: silence after speech that ends the stream; absent, only `chunks` ends it.
    """

    live_step_ms: int | None
    final: str | None
    end_of_speech_ms: int | None


@dataclass(frozen=True, slots=True)
class AudioHint:
    """The caller's description of the audio; an array's own type and shape take precedence."""

    encoding: str | None = None
    sample_rate: int = 16_000
    channels: int = 1


class Attempts:
    """The state of one job: `pause` is the time in seconds to wait before the next attempt, or
    until the job is woken (`wake_by`). `jobs` are all those of its client.

    Raises BadRequest for options out of range, TypeError for unknown ones.
    """

    def __init__(
        self,
        options: JobOptions,
        now: float,
        jobs: Jobs,
        *,
        stream: bool,
        busy_timeout: float = BUSY_TIMEOUT_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        given = _given(options, JobOptions)
        described = AudioHint.__dataclass_fields__.keys() & given.keys()
        self.hint = AudioHint(**{key: given.pop(key) for key in described})
        self._timeout = _timeout(given.pop("timeout", None))
        self._on_progress = given.pop("on_progress", None)
        self._fields = _checked(given)
        self._fields["stream"] = stream or self._on_progress is not None
        self.job_id: str = self._fields.setdefault("job_id", secrets.token_hex(8))
        self.pause = 0.0
        self.transcript: client_events.Transcript | None = None
        self._deadline = None if self._timeout is None else now + self._timeout
        self._busy_timeout = busy_timeout
        self._jitter = jitter
        self._jobs = jobs
        self._job = Job()
        self._stream = stream
        self._segments: deque[Segment] = deque()
        # Times and text of each segment that the stream has yielded.
        self._yielded: list[tuple[float, float, str]] = []
        self._next_index = 0
        self._reached = False
        self._in_flight = False
        self._resubmissions = 0
        self._refusals = 0
        self._refused_since: float | None = None
        self._gone_since: float | None = None

    @property
    def limit(self) -> float | None:
        """The time, on the clock of `now`, when all waiting ends; None without a timeout."""
        return None if self._deadline is None else self._deadline + GRACE_SECONDS

    def wake_by(self, wake: Callable[[], object]) -> None:
        """Sets what ends a pause early."""
        self._job.wake = wake

    def request(self, audio: AudioFormat, now: float) -> dict[str, Any]:
        """Returns the data of the next attempt's `transcribe` event.

        Raises DeadlineExceeded after the timeout.
        """
        request = {**self._fields, "audio": dump(audio)}
        if self._deadline is not None:
            left = self._deadline - now
            if left <= 0:
                raise self._overdue()
            request["timeout_ms"] = max(1, int(left * 1000))
        self._jobs.submit(self._job)
        self._reached = self._in_flight = True
        self._gone_since = None
        self._next_index = 0
        return request

    def take(self, answer: Answer, now: float) -> None:
        """Raises ConnectionLost if the answer of a job that was submitted again contradicts what a
        stream has yielded already."""
        if isinstance(answer, client_events.Accepted):
            if self._refusals:
                self._jobs.wake_next()
            self._refusals = 0
            self._refused_since = None
            return
        self._jobs.progressed(now)
        match answer:
            case client_events.SegmentDecoded() if self._stream:
                self._decoded(answer.index, answer.segment)
            case client_events.Progress() if self._on_progress is not None:
                self._on_progress(answer)
            case client_events.Transcript():
                if self._stream and self._next_index < len(self._yielded):
                    raise self._contradicted()
                self.transcript = answer

    def _decoded(self, index: int, segment: Segment) -> None:
        self._next_index = index + 1
        key = segment.start, segment.end, segment.text
        if index >= len(self._yielded):
            self._yielded.append(key)
            self._segments.append(segment)
        elif key != self._yielded[index]:
            raise self._contradicted()

    def _contradicted(self) -> errors.ConnectionLost:
        return errors.ConnectionLost(
            f"the connection was lost after {len(self._yielded)} segments, and the repeated job "
            "gave others: the stream can't go on"
        )

    def next_segment(self) -> Segment | None:
        return self._segments.popleft() if self._segments else None

    def result(self) -> client_events.Transcript:
        """Raises RuntimeError if the transcript has not arrived."""
        if self.transcript is None:
            raise RuntimeError("the transcript is available after the last segment")
        return self.transcript

    def failed(self, error: errors.AsrdError | TimeoutError, now: float) -> None:
        """Sets `pause` if another attempt is due, else raises.

        `error` is TimeoutError if no answer came before `limit`.
        """
        match error:
            case errors.Busy() | errors.ShuttingDown():
                self._refused(error, now)
            case errors.DeadlineExceeded(phase="queue") if self._deadline is None:
                self._expired(error, now)
            case errors.ConnectionLost():
                self._lost(error, now)
            case TimeoutError():
                raise self._overdue() from None
            case _:
                raise error

    def end(self) -> None:
        self._jobs.end(self._job)

    def leave(self) -> None:
        """The job is another process's from now on."""
        self._jobs.leave(self._job)

    def _overdue(self) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(
            f"no answer within {self._timeout:g} s",
            job_id=self.job_id,
            trace_id=self._fields.get("trace_id"),
        )

    def _refused(self, error: errors.JobError, now: float) -> None:
        if self._refused_since is None:
            self._refused_since = now
        self._wait_for_room(error, now, self._refused_since)

    def _expired(self, error: errors.DeadlineExceeded, now: float) -> None:
        self._job.expired_at = now
        self._wait_for_room(error, now, -math.inf)

    def _wait_for_room(self, error: errors.JobError, now: float, since: float) -> None:
        self._in_flight = False
        self._jobs.leave(self._job)
        self._wait(error, now, max(since, self._jobs.last_progress()) + self._busy_timeout)
        self._jobs.wait(self._job)

    def _lost(self, error: errors.ConnectionLost, now: float) -> None:
        if not self._reached:
            raise error
        if self._gone_since is None:
            self._gone_since = now
        self._resubmissions += self._in_flight
        self._in_flight = False
        self._jobs.leave(self._job)
        if self._resubmissions > RESUBMISSIONS:
            raise error
        self._wait(error, now, self._gone_since + RETURN_SECONDS)

    def _wait(self, error: errors.AsrdError, now: float, until: float) -> None:
        """Backs off exponentially, with jitter: clients refused together return separately."""
        retry_after_ms = getattr(error, "retry_after_ms", None)
        if retry_after_ms is None:
            pause = min(_FIRST_PAUSE * 2 ** min(self._refusals, _DOUBLINGS), _LONGEST_PAUSE)
            self.pause = pause * (0.5 + 0.5 * self._jitter())
        else:
            self.pause = max(retry_after_ms / 1000, _SHORTEST_PAUSE) * (1 + 0.5 * self._jitter())
        self._refusals += 1
        if now + self.pause >= (until if self._deadline is None else self._deadline):
            raise error


def live_request(options: LiveOptions) -> tuple[dict[str, Any], client_events.AudioStart]:
    """Returns the data of a live stream's `transcribe`, and its audio-start.

    Raises BadRequest for options out of range, TypeError for unknown ones.
    """
    given = _given(options, LiveOptions)
    format_ = {"rate": given.pop("sample_rate", 16_000), "channels": given.pop("channels", 1)}
    timeout = _timeout(given.pop("timeout", None))
    fields = {"job_id": secrets.token_hex(8), **_checked(given), "live": True}
    if timeout is not None:
        fields["timeout_ms"] = max(1, int(timeout * 1000))
    start = _check(client_events.AudioStart, {**format_, "width": 2}, rate="sample_rate")
    return fields, start


def _given(options: JobOptions | LiveOptions, known: type) -> dict[str, Any]:
    # A misspelt option would silently have no effect.
    unknown = [key for key in options if key not in known.__annotations__]
    inner = unknown_keys(Options, {"vad_parameters": options.get("vad_parameters")})
    for key in [*unknown, *inner]:
        raise TypeError(f"unexpected keyword argument {key!r}")
    return {key: value for key, value in options.items() if value is not None}


def _timeout(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= _LONGEST_TIMEOUT:
        raise errors.BadRequest(f"timeout: must be over 0 and up to {_LONGEST_TIMEOUT:g} seconds")
    return seconds


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of `transcribe` after the same checks that the daemon makes."""
    if "model" in fields:
        fields["name"] = fields.pop("model")
    _check(client_events.Transcribe, fields, name="model")
    _check(Options, fields)
    return fields


def cancel_request(job_id: str) -> dict[str, Any]:
    """Returns the data of `cancel`. Raises BadRequest for a text that is no job's id."""
    fields = {"job_id": job_id}
    _check(client_events.Cancel, fields)
    return fields


def _check(cls: type[T], fields: dict[str, Any], **renamed: str) -> T:
    """Raises BadRequest with the name that a caller knows: `renamed` has those that differ."""
    try:
        return parse(cls, fields)
    except errors.FieldError as error:
        field = renamed.get(error.field, error.field)
        raise errors.BadRequest(f"{field}: {error.problem}") from None
