"""A transcript as text, subtitles or JSON, a piece at a time: segments come while the job runs.

txt    the text of one segment per line
json   the whole transcript on one line, with the `file` it is of; several make JSON Lines
srt    SubRip, the de facto format
vtt    WebVTT (https://www.w3.org/TR/webvtt1/)

Segments of a recording whose channels were split are labelled, and written at the end in the order
of their times: nothing says in which order the channels are transcribed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from asrd.safe_text import fit_json, transcript_line
from asrd.wire.client_events import Transcript
from asrd.wire.fields import dump
from asrd.wire.records import Segment


class Writer(Protocol):
    """What to write before the first segment, for each segment, and after the last.

    `name` is the recording's.
    """

    def __init__(self, name: str) -> None: ...
    def begin(self) -> str: ...
    def segment(self, segment: Segment) -> str: ...
    def end(self, transcript: Transcript) -> str: ...


class TextWriter:
    def __init__(self, name: str) -> None:
        pass

    def begin(self) -> str:
        return ""

    def segment(self, segment: Segment) -> str:
        return "" if segment.channel is not None else self._line(segment)

    def end(self, transcript: Transcript) -> str:
        segments = [segment for segment in transcript.segments if segment.channel is not None]
        return "".join(map(self._line, sorted(segments, key=attrgetter("start"))))

    def _line(self, segment: Segment) -> str:
        return f"{_label(segment.channel)}{transcript_line(segment.text)}\n"


class JsonWriter:
    def __init__(self, name: str) -> None:
        self._name = name

    def begin(self) -> str:
        return ""

    def segment(self, segment: Segment) -> str:
        return ""

    def end(self, transcript: Transcript) -> str:
        # A name need not be UTF-8, but JSON must be.
        name = self._name.encode(errors="backslashreplace").decode()
        return fit_json({"file": name, **dump(transcript)}) + "\n"


@dataclass(frozen=True, slots=True)
class _Cue:
    """Times in milliseconds."""

    start: int
    end: int
    channel: int | None
    text: str


class _SubtitleWriter(ABC):
    """Cues in order, none without length or text. Only those of different channels overlap."""

    def __init__(self, name: str) -> None:
        self._count = 0
        self._last_end: dict[int | None, int] = {}

    def begin(self) -> str:
        return ""

    def segment(self, segment: Segment) -> str:
        return "" if segment.channel is not None else self._written(self._cues([segment]))

    def end(self, transcript: Transcript) -> str:
        segments = [segment for segment in transcript.segments if segment.channel is not None]
        return self._written(sorted(self._cues(segments), key=attrgetter("start")))

    def _cues(self, segments: Iterable[Segment]) -> Iterator[_Cue]:
        for segment in segments:
            if text := transcript_line(segment.text):
                start = max(round(segment.start * 1000), self._last_end.get(segment.channel, 0))
                end = max(round(segment.end * 1000), start + 1)
                self._last_end[segment.channel] = end
                yield _Cue(start, end, segment.channel, text)

    def _written(self, cues: Iterable[_Cue]) -> str:
        written = []
        for cue in cues:
            self._count += 1
            written.append(self.cue(self._count, cue))
        return "".join(written)

    @abstractmethod
    def cue(self, number: int, cue: _Cue) -> str: ...


class SrtWriter(_SubtitleWriter):
    def cue(self, number: int, cue: _Cue) -> str:
        # SubRip knows no escapes; an arrow in the text would read as another cue's times.
        text = _label(cue.channel) + cue.text.replace("-->", "->")
        return f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


class VttWriter(_SubtitleWriter):
    def begin(self) -> str:
        return "WEBVTT\n\n"

    def cue(self, number: int, cue: _Cue) -> str:
        text = cue.text
        for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, escape)
        if cue.channel is not None:
            text = f"<v Channel {cue.channel + 1}>{text}"
        return f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n\n"


FORMATS: dict[str, type[Writer]] = {
    "txt": TextWriter,
    "json": JsonWriter,
    "srt": SrtWriter,
    "vtt": VttWriter,
}


def render(format: str, name: str, transcript: Transcript) -> str:
    """A finished transcript whole."""
    writer = FORMATS[format](name)
    segments = [writer.segment(segment) for segment in transcript.segments]
    return "".join([writer.begin(), *segments, writer.end(transcript)])


def _label(channel: int | None) -> str:
    """People count channels from 1, the protocol from 0."""
    return "" if channel is None else f"[channel {channel + 1}] "


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
