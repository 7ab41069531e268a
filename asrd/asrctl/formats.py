"""A transcript as text, subtitles or JSON, a piece at a time: segments come while the job runs.

txt    the text of one segment per line
json   the whole transcript on one line, with the `file` it is of; several make JSON Lines
srt    SubRip, the de facto format
vtt    WebVTT (https://www.w3.org/TR/webvtt1/)
"""

from abc import ABC, abstractmethod
from typing import Protocol

from asrd.events import (
    Transcript,
)
from asrd.fields import dump
from asrd.plaintext import fit, fit_json, one_line
from asrd.records import (
    Segment,
)


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
        return one_line(segment.text) + "\n"

    def end(self, transcript: Transcript) -> str:
        return ""


class JsonWriter:
    def __init__(self, name: str) -> None:
        self._name = name

    def begin(self) -> str:
        return ""

    def segment(self, segment: Segment) -> str:
        return ""

    def end(self, transcript: Transcript) -> str:
        return fit_json({"file": fit(self._name), **dump(transcript)}) + "\n"


class _SubtitleWriter(ABC):
    """Cues in order, none before the end of the one before it, none without length or text."""

    def __init__(self, name: str) -> None:
        self._count = 0
        self._last_end = 0

    def begin(self) -> str:
        return ""

    def segment(self, segment: Segment) -> str:
        text = one_line(segment.text)
        if not text:
            return ""
        start = max(round(segment.start * 1000), self._last_end)
        end = max(round(segment.end * 1000), start + 1)
        self._last_end = end
        self._count += 1
        return self.cue(self._count, start, end, text)

    @abstractmethod
    def cue(self, number: int, start: int, end: int, text: str) -> str:
        """Times in milliseconds."""

    def end(self, transcript: Transcript) -> str:
        return ""


class SrtWriter(_SubtitleWriter):
    def cue(self, number: int, start: int, end: int, text: str) -> str:
        # SubRip knows no escapes; an arrow in the text would read as another cue's times.
        text = text.replace("-->", "->")
        return f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n"


class VttWriter(_SubtitleWriter):
    def begin(self) -> str:
        return "WEBVTT\n\n"

    def cue(self, number: int, start: int, end: int, text: str) -> str:
        for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, escape)
        return f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n\n"


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


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
