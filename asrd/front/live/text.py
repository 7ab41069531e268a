"""The text of a live stream: from the answers to its steps to the events that its client gets."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from asrd.errors import FieldError
from asrd.front.front import Front
from asrd.front.live.agreement import Agreement, Step
from asrd.front.live.steps import checked, wrong_answer
from asrd.front.request import Finished
from asrd.front.scheduling.actions import Failure
from asrd.front.transcripts import too_large
from asrd.wire import strict_json
from asrd.wire.client_events import (
    LiveEvent,
    Transcribe,
    Transcript,
    TranscriptChunk,
    TranscriptStart,
    TranscriptStop,
)
from asrd.wire.fields import dump
from asrd.wire.languages import language
from asrd.wire.options import PROMPT_MAX, Options
from asrd.wire.peer import User
from asrd.wire.records import Segment, Word

# Options that steps can't follow: their audio is a piece of the recording, and their words need
# times.
_IMPOSSIBLE = (
    *("clip_timestamps", "prefix", "split_channels", "batch_size", "without_timestamps"),
    *("include_tokens",),
)


class Client(Protocol):
    """The client's session."""

    def send(self, kind: str, data: dict[str, Any] | bytes) -> None: ...
    def stream_failed(self, failure: Failure) -> None: ...


def check_options(options: Options) -> None:
    """Raises FieldError for an option that live text can't follow."""
    if options.task not in ("transcribe", "translate"):
        raise FieldError("task", f"{options.task}: is not possible with live")
    for name in _IMPOSSIBLE:
        if getattr(options, name) not in (None, "", False):
            raise FieldError(name, "is not possible with live")


class LiveText:
    """Owns the text that was sent, until `close`. `fail` ends the stream, and later its job.

    The tail of the stream begins at `begin`. `exact`: the transcript is that of the whole stream.
    When that has ended, its job has the audio from `rest` to `length` (seconds).
    """

    def __init__(
        self,
        front: Front,
        client: Client,
        user: User,
        transcribe: Transcribe,
        options: Options,
        exact: bool,
        plain: bool,
    ) -> None:
        self.finished = Finished()
        self.user = user
        self.exact = exact
        self.gave_up = False
        self.rest = self.length = 0.0
        self.fail: Callable[[Failure], None] = client.stream_failed
        self._front = front
        self._options = options
        self._language = options.language
        self._job_id = transcribe.job_id
        self._plain = plain
        self._send = client.send
        self._agreement = Agreement()
        self._pending = ""
        self._count = 0
        self._answer(TranscriptStart(self._job_id, options.language))

    @property
    def begin(self) -> float:
        return self._agreement.begin

    def give_up(self) -> None:
        """No model can make text while the stream arrives."""
        self.exact = self.gave_up = True

    def close(self) -> None:
        self._front.transcripts.drop(self)

    def options(self, last: bool = False) -> Options:
        """Returns the options of the next step."""
        given = self._options
        said = self._agreement.said
        parts = (given.initial_prompt or "").strip(), said.strip()
        prompt = " ".join(part for part in parts if part)[-PROMPT_MAX:]
        return replace(
            given,
            language=self._language,
            word_timestamps=True,
            condition_on_previous_text=False,
            initial_prompt=prompt or None,
            # Words that a higher temperature invents once do not come twice. But the last
            # hypothesis is committed as it is.
            temperature=given.temperature if last else 0.0,
            # Whisper invents text for silence, which every pause of a speaker is.
            vad_filter=True if given.vad_filter is None else given.vad_filter,
        )

    def hear(self, answer: Transcript, end: float) -> None:
        """Takes the answer to the step over the tail up to `end`, and sends what has changed.
        Raises FieldError."""
        step = self._agreement.hear(_moved(answer.segments, self.begin, end), end)
        if step.committed and not self._options.multilingual:
            # Two hypotheses agreed on words of this language.
            self._language = language("language", answer.language)
        segment = self._commit(step)
        # An exact transcript has its own segments.
        if segment is not None and not self.exact:
            self._front.keep(self, segment.text, [dump(segment)])

    def whole(self, rest: bytes) -> bytes | Failure:
        """Returns the transcript of the whole stream, given the answer to its job; sends the last
        words as a chunk."""
        # It is sent at once.
        self.close()
        if self.exact:
            return rest
        try:
            answer = checked(rest, self.length - self.rest)
            moved = _moved(answer.segments, self.rest, self.length)
        except FieldError as problem:
            return wrong_answer(problem)
        segment = self._commit(self._agreement.hear(moved, self.length, last=True))
        if segment is not None:
            self.finished.add(segment.text, [dump(segment)])
        return self._joined(strict_json.loads(rest))

    def stop(self) -> None:
        """Sends the last event."""
        self.close()
        self._answer(TranscriptStop(self._job_id))

    def _joined(self, data: dict[str, Any]) -> bytes | Failure:
        data["text"] = self.finished.text.decode().strip()
        data["duration_ms"] = round(self.length * 1000)
        del data["segments"]
        whole = strict_json.dumps(data)[:-1] + b',"segments":[' + self.finished.segments + b"]}"
        return too_large(len(whole)) or whole

    def _commit(self, step: Step) -> Segment | None:
        """Sends what has changed. Returns the segment of the words that were committed."""
        pending = "" if self._plain else _text(step.pending)
        changed, self._pending = pending != self._pending, pending
        if not step.committed:
            if changed:
                self._answer(TranscriptChunk("", self._job_id, pending=pending or None))
            return None
        words = tuple(step.committed)
        self._count += 1
        text = _text(step.committed)
        segment = Segment(
            id=self._count,
            start=words[0].start,
            end=words[-1].end,
            text=text if self._count > 1 else text.lstrip(),
            words=words,
        )
        self._answer(
            TranscriptChunk(segment.text, self._job_id, segment.start, segment.end, pending or None)
        )
        return segment

    def _answer(self, event: LiveEvent) -> None:
        self._send(event.TYPE, dump(event))


def _text(words: list[Word]) -> str:
    return "".join(word.word for word in words)


def _moved(segments: tuple[Segment, ...], begin: float, end: float) -> list[Segment]:
    """Returns the segments of the audio between `begin` and `end` at their places in the stream.

    Times outside of the audio are moved to its ends, whatever a worker says. Raises FieldError.
    """
    return [_moved_segment(segment, begin, end) for segment in segments]


def _moved_segment(segment: Segment, begin: float, end: float) -> Segment:
    if segment.words is None:
        raise FieldError("segments", "have no words")

    def moved(seconds: float) -> float:
        return round(min(max(begin + seconds, begin), end), 3)

    words = []
    for word in segment.words:
        start = moved(word.start)
        words.append(replace(word, start=start, end=max(start, moved(word.end))))
    return replace(segment, start=moved(segment.start), end=moved(segment.end), words=tuple(words))
