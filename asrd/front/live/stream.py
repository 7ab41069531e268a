"""A stream that is heard while it arrives: for its text (`live`), for its end, or for both.

It stands in the place of the recording, and counts as one job of its user. Its steps begin when a
chunk has arrived or a step has ended, whichever is later.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from asrd.errors import Busy, Code, FieldError, JobError, TooLarge
from asrd.front.front import Front
from asrd.front.live import end_of_speech
from asrd.front.live.end_of_speech import EndOfSpeech
from asrd.front.live.steps import Steps, wrong_answer
from asrd.front.live.text import Client, LiveText, check_options
from asrd.front.request import is_plain, why_refused
from asrd.front.scheduling.actions import Failure
from asrd.front.spool import SpooledAudio
from asrd.settings import FrontSettings
from asrd.wire.client_events import AudioChunk, Transcribe, Transcript
from asrd.wire.options import Options
from asrd.wire.peer import Peer
from asrd.wire.records import WINDOW_SECONDS, AudioFormat

log = logging.getLogger(__name__)

# A step's audio is copied, so that of a studio would cost much. Microphones have no more.
_RATE_MAX, _CHANNELS_MAX = 48_000, 2


class Owner(Client, Protocol):
    """The session that the stream belongs to."""

    peer: Peer
    max_audio_seconds: float

    def check_job_id(self, job_id: str | None) -> None: ...
    def speech_ended(self) -> None: ...
    def stream_failed(self, failure: Failure) -> None: ...


@dataclass(frozen=True)
class Wishes:
    """The services that a stream gets while it arrives; times in seconds, 0 for none."""

    live_step: float
    exact: bool
    silence: float

    @classmethod
    def of(
        cls, transcribe: Transcribe, options: Options, format_: AudioFormat, settings: FrontSettings
    ) -> "Wishes | None":
        """Returns None for an ordinary stream. Raises FieldError for one that can't be heard.

        A plain client gets what the settings say, if that is possible.
        """
        plain = is_plain(transcribe)
        live = transcribe.live or (plain and settings.wyoming_live)
        silence = transcribe.end_of_speech_ms or plain * settings.wyoming_end_of_speech_ms
        if not (live or silence):
            return None
        try:
            _check_format(format_)
            if live:
                check_options(options)
        except FieldError:
            if plain:
                return None
            raise
        exact = not live or transcribe.final == "exact"
        return cls(live * transcribe.live_step_ms / 1000, exact, silence / 1000)


def with_job_id(transcribe: Transcribe) -> Transcribe:
    """Returns the request of a live stream with a job id, since its first event comes before its
    end. Raises FieldError if no stream follows."""
    if not transcribe.live and transcribe.end_of_speech_ms is None:
        return transcribe
    if transcribe.audio is not None:
        text = "must be absent with live and end_of_speech_ms: a stream follows"
        raise FieldError("audio", text)
    return replace(transcribe, job_id=transcribe.job_id or os.urandom(8).hex())


def record(
    front: Front,
    owner: Owner,
    new_recording: Callable[[], SpooledAudio],
    transcribe: Transcribe,
    options: Options,
    format_: AudioFormat,
) -> "SpooledAudio | LiveStream":
    """Returns the recording of a stream that begins. Raises FieldError, Busy."""
    wishes = Wishes.of(transcribe, options, format_, front.settings)
    if wishes is None:
        return new_recording()
    return LiveStream(front, owner, (transcribe, options, format_), wishes, new_recording)


def _check_format(format_: AudioFormat) -> None:
    for name, value, most in (
        ("rate", format_.sample_rate, _RATE_MAX),
        ("channels", format_.channels, _CHANNELS_MAX),
    ):
        if value > most:
            raise FieldError(name, f"at most {most} with live and end_of_speech_ms, not {value}")


class LiveStream:
    """Raises Busy if its user has as many jobs as it may, FieldError if its id is used already."""

    def __init__(
        self,
        front: Front,
        owner: Owner,
        recorded: tuple[Transcribe, Options, AudioFormat],
        wishes: Wishes,
        new_recording: Callable[[], SpooledAudio],
    ) -> None:
        transcribe, options, format_ = recorded
        owner.check_job_id(transcribe.job_id)
        peer, name = owner.peer, transcribe.user
        self.user = peer.user if name is None else peer.on_behalf_of(name)
        self.fail = owner.stream_failed
        front.unanswered.begin_stream(self)
        self._front, self._owner = front, owner
        self._audio = new_recording()
        self._options, self._wishes = options, wishes
        self._frame_bytes, self._rate = format_.frame_bytes, format_.sample_rate
        # The place of the first byte that is kept.
        self._base = 0
        self._plain = is_plain(transcribe)
        self._closed = False
        # In seconds: the end of the audio that was decoded, and what the VAD searches.
        self._decoded = 0.0
        self._searched = (0.0, 0.0)
        self._text: LiveText | None = None
        if wishes.live_step:
            self._text = LiveText(
                front, owner, self.user, transcribe, options, wishes.exact, self._plain
            )
        self._speech = EndOfSpeech(wishes.silence) if wishes.silence else None
        steps = partial(Steps, front, owner.peer, transcribe, format_)
        self._text_steps = steps(self._text_heard, self._text_failed)
        self._speech_steps = steps(self._speech_heard, self._speech_failed)

    # --- the recording of a stream ----------------------------------------------------------------

    def write(self, data: memoryview) -> None:
        self._audio.write(data)

    def give_up(self, failure: Failure) -> None:
        """The stream ends without a job of its own: it is one that failed."""
        self._end()
        self._audio.close()
        if self._text is not None:
            self._text.close()
        self._front.metrics.stream_failed(failure.code)
        text, fields = f"{failure.code}: {failure.text}", self._owner.peer.log_fields
        log.info("a live stream failed: %s", text, extra={"fields": fields})

    def stop(self) -> tuple[Options, SpooledAudio, LiveText | None]:
        """Returns the audio and the options of the stream's job, and the text of which that is the
        rest. The caller owns all of it. Raises TooLarge, Busy, and keeps nothing."""
        self._end()
        text = self._text
        try:
            # The speech may have ended in the middle of a chunk, for which there was no room.
            self._audio.cut(self._audio.size - self._audio.size % self._frame_bytes)
        except JobError:
            if text is not None:
                text.close()
            raise
        if text is None:
            return self._options, self._audio, None
        text.rest, text.length = self._base_seconds, self._length
        return self._options if text.exact else text.options(last=True), self._audio, text

    def _end(self) -> None:
        self._closed = True
        self._front.unanswered.end_stream(self)
        self._text_steps.close()
        self._speech_steps.close()

    # --- its steps --------------------------------------------------------------------------------

    def advance(self) -> None:
        """Begins the steps that are due. Raises TooLarge, Busy."""
        self._audio.check()
        limit = self._owner.max_audio_seconds
        if self._length > limit:
            raise TooLarge(f"audio: lasts more than the limit of {limit:g} s")
        if self._text is not None and not self._text.gave_up:
            self._advance_text(self._text)
        if self._speech is not None and not self._closed:
            self._advance_speech(self._speech)

    def _advance_text(self, text: LiveText) -> None:
        length = self._length
        end = min(length, text.begin + WINDOW_SECONDS)
        full = end < length
        if self._text_steps.may_run and (full or end - self._decoded >= self._wishes.live_step):
            self._decoded = end
            self._run(self._text_steps, text.begin, end, text.options())

    def _advance_speech(self, speech: EndOfSpeech) -> None:
        end = min(self._length, speech.begin + WINDOW_SECONDS)
        if self._speech_steps.may_run and end - speech.heard >= end_of_speech.STEP_SECONDS:
            self._searched = speech.begin, end
            self._run(self._speech_steps, speech.begin, end, end_of_speech.OPTIONS)

    def _run(self, steps: Steps, begin: float, end: float, options: Options) -> None:
        try:
            audio = self._audio.copy(self._place(begin) - self._base, self._place(end) - self._base)
        except Busy:
            steps.wait()
        else:
            steps.run(audio, options)

    def _text_heard(self, answer: Transcript) -> None:
        text = self._text
        if text is None:
            return
        try:
            text.hear(answer, self._decoded)
        except FieldError as problem:
            self.fail(wrong_answer(problem))
            return
        if not self._closed:
            if not text.exact:
                # The search for the end of speech may be far behind.
                begin = text.begin if self._speech is None else self._speech.begin
                self._drop_before(min(text.begin, begin))
            self._advance_again()

    def _text_failed(self, failure: Failure) -> None:
        """A plain client did not ask for live text. Without a model for that it gets its
        transcript."""
        text, impossible = self._text, failure.code is Code.BAD_REQUEST
        if self._plain and impossible and text is not None and self._base == 0:
            text.give_up()
        else:
            self.fail(failure)

    def _speech_failed(self, failure: Failure) -> None:
        """A plain client's text does not need the VAD: its stream ends with its audio-stop."""
        if self._plain:
            self._speech = None
        else:
            self.fail(failure)

    def _speech_heard(self, answer: Transcript) -> None:
        if self._speech is None:
            return
        if self._speech.hear(answer.segments, *self._searched):
            self._owner.speech_ended()
        else:
            self._advance_again()

    def _advance_again(self) -> None:
        """Begins the step for which audio has arrived meanwhile."""
        try:
            self.advance()
        except JobError as problem:
            self.fail(why_refused(AudioChunk.TYPE, problem))

    def _drop_before(self, seconds: float) -> None:
        """Releases the memory of audio that is not needed any more."""
        place = self._place(seconds)
        if place == self._base:
            return
        try:
            kept = self._audio.copy(place - self._base)
        except Busy:
            # Later: for a moment, the copy needs room.
            return
        self._audio.close()
        self._audio = kept
        self._base = place

    @property
    def _base_seconds(self) -> float:
        return self._base / self._frame_bytes / self._rate

    @property
    def _length(self) -> float:
        """In seconds; whole frames only."""
        return (self._base + self._audio.size) // self._frame_bytes / self._rate

    def _place(self, seconds: float) -> int:
        """Returns the place of a time in bytes."""
        return round(seconds * self._rate) * self._frame_bytes
