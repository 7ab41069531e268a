"""A transcript as text, subtitles or JSON, written in pieces while the job runs.

txt    the text of one segment per line
json   the whole transcript on one line, with the `file` it is of; several make JSON Lines
srt    SubRip, the de facto format
vtt    WebVTT (https://www.w3.org/TR/webvtt1/)

If the channels of a recording are split, its segments are labelled, and written at the end in the
order of their times: the channels may be transcribed in any order.
"""

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from asrd.safe_text import safe_json, transcript_line
from asrd.wire.client_events import Transcript
from asrd.wire.fields import dump
from asrd.wire.records import Segment


class Writer(ABC):
    """Returns the text to write: `header`, then `segment` for each, then `end`."""

    header = ""

    def __init__(self, name: str) -> None:
        """`name` is the recording's file name."""
        self.name = name

    def segment(self, segment: Segment) -> str:
        return "" if segment.channel is not None else self._text([segment])

    def end(self, transcript: Transcript) -> str:
        return self._text([item for item in transcript.segments if item.channel is not None])

    def whole(self, transcript: Transcript) -> str:
        segments = map(self.segment, transcript.segments)
        return "".join([self.header, *segments, self.end(transcript)])

    @abstractmethod
    def _text(self, segments: Iterable[Segment]) -> str:
        """Returns the text of segments, in the order of their times."""


class TextWriter(Writer):
    def _text(self, segments: Iterable[Segment]) -> str:
        return "".join(
            f"{_label(segment.channel)}{transcript_line(segment.text)}\n"
            for segment in sorted(segments, key=attrgetter("start"))
        )


class LanguageWriter(TextWriter):
    """The answer to the task `detect`, which has no text: the language and its probability."""

    def end(self, transcript: Transcript) -> str:
        probability = transcript.language_probability or 0
        return f"{transcript_line(transcript.language or 'unknown')} {probability:.2f}\n"


class JsonWriter(Writer):
    def _text(self, segments: Iterable[Segment]) -> str:
        return ""

    def end(self, transcript: Transcript) -> str:
        # A file name need not be UTF-8, but JSON must be.
        name = self.name.encode(errors="backslashreplace").decode()
        return safe_json({"file": name, **dump(transcript)}) + "\n"


@dataclass(frozen=True, slots=True)
class _Cue:
    """A subtitle; times are in milliseconds."""

    start: int
    end: int
    channel: int | None
    text: str


class SrtWriter(Writer):
    """Cues in order, each with a duration and a text. Only cues of different channels overlap."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._count = 0
        self._last_end: dict[int | None, int] = {}

    def _text(self, segments: Iterable[Segment]) -> str:
        return "".join(map(self._cue, sorted(self._cues(segments), key=attrgetter("start"))))

    def _cues(self, segments: Iterable[Segment]) -> Iterator[_Cue]:
        for segment in segments:
            if text := transcript_line(segment.text):
                start = max(round(segment.start * 1000), self._last_end.get(segment.channel, 0))
                end = max(round(segment.end * 1000), start + 1)
                self._last_end[segment.channel] = end
                yield _Cue(start, end, segment.channel, text)

    def _cue(self, cue: _Cue) -> str:
        self._count += 1
        # SubRip has no escapes; an arrow in the text would look like the times of another cue.
        text = _label(cue.channel) + cue.text.replace("-->", "->")
        return f"{self._count}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


class VttWriter(SrtWriter):
    header = "WEBVTT\n\n"

    def _cue(self, cue: _Cue) -> str:
        text = html.escape(cue.text, quote=False)
        if cue.channel is not None:
            text = f"<v Channel {cue.channel + 1}>{text}"
        return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"


FORMATS: dict[str, type[Writer]] = {
    "txt": TextWriter,
    "json": JsonWriter,
    "srt": SrtWriter,
    "vtt": VttWriter,
}


def _label(channel: int | None) -> str:
    """Returns the channel's label; people count from 1, the protocol counts from 0."""
    return "" if channel is None else f"[channel {channel + 1}] "


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
