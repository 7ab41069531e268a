"""One `transcribe` call over all its attempts, without I/O and without a clock.

    refused (`busy`, `shutting-down`)    wait, no shorter than `retry_after_ms`, and ask again
    connection lost in the middle        ask again, twice at most: a transcription changes nothing
    no daemon when asking again          wait a while: it may be about to be back
    anything else                        is the answer

All of it inside the caller's timeout; without one a refusal is waited out for a minute, and a
run may take as long as the daemon allows. Segments that another attempt repeats are dropped.
"""

import random
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from asrd.client.conversation import Answer
from asrd.errors import (
    AsrdError,
    BadRequest,
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    FieldError,
    JobError,
    ShuttingDown,
)
from asrd.wire.client_events import Accepted, Progress, SegmentDecoded, Transcribe, Transcript
from asrd.wire.fields import dump, parse
from asrd.wire.records import AudioFormat, Options, Segment

# How long a call without a timeout waits for the daemon to take its job.
PATIENCE_SECONDS = 60.0
# How long a daemon that was there may be gone before a call gives up on it.
RETURN_SECONDS = 10.0
RESUBMISSIONS = 2
# How much later than the timeout the daemon's own `deadline-exceeded` may arrive.
GRACE_SECONDS = 2.0
_SHORTEST_PAUSE, _FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1, 5.0
_LONGEST_TIMEOUT = 24 * 3600.0


class JobOptions(TypedDict, total=False):
    """What `transcribe` and `stream` take beside the audio; absent means the daemon's default.

    `language` to `word_timestamps` are faster-whisper's options of the same names;
    `audio_track`, `require_complete` and `split_channels` are those of asrd.wire.records.Options.
    `model` must be one that a worker has loaded. `job_id` and `trace_id` name the job in logs and
    status. `timeout` is in seconds, over everything: waiting, running, asking again. `encoding` is
    `file` (any container that PyAV reads: the default but for arrays), `pcm_s16le` or
    `pcm_f32le`, the last two with `sample_rate` in Hz and interleaved `channels`.
    `on_progress` is called with each Progress as it comes.
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
    model: str | None
    job_id: str | None
    trace_id: str | None
    timeout: float | None
    sample_rate: int
    channels: int
    encoding: str | None
    on_progress: Callable[[Progress], object] | None


@dataclass(frozen=True, slots=True)
class AudioHint:
    """What the caller said of the audio; what the audio itself says goes before it."""

    encoding: str | None = None
    sample_rate: int = 16_000
    channels: int = 1


class Attempts:
    """`pause` is how long to wait before the next attempt; `transcript` the answer, once there.

    Raises BadRequest for options out of range, TypeError for unknown ones.
    """

    def __init__(
        self,
        options: JobOptions,
        now: float,
        *,
        stream: bool,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        given = _given(options)
        self.hint = AudioHint(**{key: given.pop(key) for key in _HINTS & given.keys()})
        self._timeout = _timeout(given.pop("timeout", None))
        self._on_progress = given.pop("on_progress", None)
        self._fields = _checked(given)
        self._fields["stream"] = stream or self._on_progress is not None
        self.job_id: str = self._fields.setdefault("job_id", secrets.token_hex(8))
        self.pause = 0.0
        self.transcript: Transcript | None = None
        self._deadline = None if self._timeout is None else now + self._timeout
        self._jitter = jitter
        self._segments: deque[Segment] = deque()
        self._next_index = 0
        self._met = False
        self._in_flight = False
        self._resubmissions = 0
        self._refusals = 0
        self._refused_since: float | None = None
        self._gone_since: float | None = None

    @property
    def limit(self) -> float | None:
        """When to stop waiting for anything at all, as `now` counts; None: never."""
        return None if self._deadline is None else self._deadline + GRACE_SECONDS

    def request(self, audio: AudioFormat, now: float) -> dict[str, Any]:
        """The data of the `transcribe` event of the next attempt.

        Raises DeadlineExceeded once the timeout is over.
        """
        request = {**self._fields, "audio": dump(audio)}
        if self._deadline is not None:
            left = self._deadline - now
            if left <= 0:
                raise self.overdue()
            request["timeout_ms"] = max(1, int(left * 1000))
        self._met = self._in_flight = True
        self._gone_since = None
        return request

    def take(self, answer: Answer) -> None:
        match answer:
            case Accepted():
                self._refusals = 0
                self._refused_since = None
            case SegmentDecoded() if answer.index >= self._next_index:
                self._next_index = answer.index + 1
                self._segments.append(answer.segment)
            case Progress() if self._on_progress is not None:
                self._on_progress(answer)
            case Transcript():
                self.transcript = answer
            case _:
                return

    def next_segment(self) -> Segment | None:
        return self._segments.popleft() if self._segments else None

    def result(self) -> Transcript:
        """Raises RuntimeError as long as there is none."""
        if self.transcript is None:
            raise RuntimeError("the transcript is there once all segments were taken")
        return self.transcript

    def failed(self, error: AsrdError, now: float) -> None:
        """Sets `pause` if another attempt is due; else raises `error`."""
        match error:
            case Busy() | ShuttingDown():
                self._refused(error, now)
            case ConnectionLost():
                self._lost(error, now)
            case _:
                raise error

    def overdue(self) -> DeadlineExceeded:
        """The daemon has been silent past the timeout, or there is no time left to ask it."""
        return DeadlineExceeded(
            f"no answer within {self._timeout:g} s",
            job_id=self.job_id,
            trace_id=self._fields.get("trace_id"),
        )

    def _refused(self, error: JobError, now: float) -> None:
        self._in_flight = False
        if self._refused_since is None:
            self._refused_since = now
        self._wait(error, now, self._refused_since + PATIENCE_SECONDS)

    def _lost(self, error: ConnectionLost, now: float) -> None:
        if not self._met:
            raise error
        if self._gone_since is None:
            self._gone_since = now
        if self._in_flight:
            self._in_flight = False
            self._resubmissions += 1
        if self._resubmissions > RESUBMISSIONS:
            raise error
        self._wait(error, now, self._gone_since + RETURN_SECONDS)

    def _wait(self, error: AsrdError, now: float, patience: float) -> None:
        """Grows with each refusal, and is spread so that those refused together come apart."""
        asked = getattr(error, "retry_after_ms", None)
        if asked is None:
            pause = min(_FIRST_PAUSE * 2**self._refusals, _LONGEST_PAUSE)
            self.pause = pause * (0.5 + 0.5 * self._jitter())
        else:
            self.pause = max(asked / 1000, _SHORTEST_PAUSE) * (1 + 0.5 * self._jitter())
        self._refusals += 1
        if now + self.pause >= (patience if self._deadline is None else self._deadline):
            raise error


_HINTS = frozenset({"encoding", "sample_rate", "channels"})


def _given(options: JobOptions) -> dict[str, Any]:
    for key in options:
        if key not in JobOptions.__annotations__:
            raise TypeError(f"unexpected keyword argument {key!r}")
    return {key: value for key, value in options.items() if value is not None}


def _timeout(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds <= _LONGEST_TIMEOUT:
        raise BadRequest(f"timeout: must be over 0 and up to {_LONGEST_TIMEOUT:g} seconds")
    return seconds


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of `transcribe`, after the same checks that the daemon makes."""
    if "model" in fields:
        fields["name"] = fields.pop("model")
    try:
        parse(Transcribe, fields)
        parse(Options, fields)
    except FieldError as error:
        raise BadRequest(str(error)) from None
    return fields
