"""The steps of a live stream: short jobs of the front's own, one at a time. They decode the end of
the stream's audio, or look for the end of speech in it.

If the worker dies, the scheduler repeats the step, and nothing else is lost: the audio and the
committed text are in the front. For the limits and the numbers it is no job.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio

from asrd.errors import Code, FieldError
from asrd.front.front import Front
from asrd.front.request import Request, make_request
from asrd.front.scheduling.actions import Failure
from asrd.front.spool import SpooledAudio
from asrd.wire import strict_json
from asrd.wire.client_events import Transcribe, Transcript
from asrd.wire.fields import parse
from asrd.wire.options import Options
from asrd.wire.peer import Peer
from asrd.wire.records import WINDOW_SECONDS, AudioFormat
from asrd.wire.worker_events import JobProgress

# The largest answer for a window. 30 s of speech have at most 448 tokens.
_ANSWER_MAX = 128 * 1024
# Seconds until the next step after one that was skipped.
_LATER = 1.0


class Steps:
    """`heard` gets the answer to each step; `failed` an error that ends the stream."""

    def __init__(
        self,
        front: Front,
        peer: Peer,
        transcribe: Transcribe,
        format_: AudioFormat,
        heard: Callable[[Transcript], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self.peer = peer
        self._front = front
        self._transcribe = replace(transcribe, stream=False, timeout_ms=None)
        self._format = format_
        self._heard, self._failed = heard, failed
        self._request: Request | None = None
        self._not_before = 0.0
        self._answered_at = -math.inf
        # The model of the last step. Another one would hear other words.
        self._model: str | None = None

    @property
    def may_run(self) -> bool:
        return self._request is None and anyio.current_time() >= self._not_before

    def run(self, audio: SpooledAudio, options: Options) -> None:
        """Submits a step, if `may_run`. Takes `audio` over, which is not empty."""
        now = anyio.current_time()
        try:
            audio.seal()
            limit = WINDOW_SECONDS + 1
            request = make_request(
                *(self, self._transcribe, options, self._format, audio, now, limit), step=True
            )
        except BaseException:
            audio.close()
            raise
        request.job.model = self._model
        self._request = request
        self._front.submit(request)

    def wait(self) -> None:
        """Makes the next step wait: there was no room for this one, or no time."""
        self._not_before = anyio.current_time() + _LATER

    def close(self) -> None:
        """Ends the step that runs; nothing is reported any more."""
        request, self._request = self._request, None
        if request is not None:
            self._front.cancel(request, Failure(Code.CANCELLED, "the stream has ended"))

    # --- as the client of a request ---------------------------------------------------------------

    def finished(self, request: Request, transcript: bytes) -> None:
        if request is not self._request:
            return
        self._request = None
        try:
            answer = checked(transcript, WINDOW_SECONDS)
        except FieldError as problem:
            self._failed(wrong_answer(problem))
            return
        self._model, self._answered_at = answer.model, anyio.current_time()
        self._heard(answer)

    def failed(self, request: Request, failure: Failure) -> None:
        if request is not self._request:
            return
        self._request = None
        if failure.code is Code.DEADLINE_EXCEEDED or self._may_pass(failure):
            self.wait()
        else:
            self._failed(failure)

    def _may_pass(self, failure: Failure) -> bool:
        """Returns True if no worker can serve, but one did as recently as a job would wait."""
        age = anyio.current_time() - self._answered_at
        recent = age < self._front.settings.max_wait_seconds
        return failure.code is Code.UNAVAILABLE and recent

    def accepted(self, request: Request, queue_depth: int) -> None: ...
    def segment(self, request: Request, index: int, segment: dict[str, Any]) -> None: ...
    def progress(self, request: Request, event: JobProgress) -> None: ...

    def cancel(self, job_id: str, failure: Failure) -> bool:
        return False


def wrong_answer(problem: FieldError) -> Failure:
    return Failure(Code.INTERNAL, f"the answer of its worker is wrong: {problem}")


def checked(transcript: bytes, seconds: float) -> Transcript:
    """Returns the answer to a job with so much audio; nothing in it is trusted: to parse the
    largest one would stop the front for seconds. Raises FieldError."""
    limit = _ANSWER_MAX * math.ceil(max(1.0, seconds / WINDOW_SECONDS))
    if len(transcript) > limit:
        raise FieldError("segments", f"have more than {limit} bytes")
    answer: Transcript = parse(Transcript, strict_json.loads(transcript))
    return answer
