"""A transcript as text, subtitles or JSON, written in pieces while the job runs.

txt    the text of one segment per line
json   the whole transcript on one line, with the `file` it is of; several make JSON Lines
srt    SubRip, the de facto format
vtt    WebVTT (https://www.w3.org/TR/webvtt1/)
tsv    a table of segments, as Whisper's own program writes it
lrc    lines of lyrics, each with its start
jsonl  an object per segment, one on each line, with the `file` it is of

If the channels of a recording are split, its segments are labelled, and written at the end in the
order of their times: the channels may be transcribed in any order. Segments with a speaker are
labelled, too.
"""

import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import Any

from asrd.safe_text import safe_json, transcript_line
from asrd.subtitles import Cue, Layout, Whole
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
            f"{label(segment)}{transcript_line(segment.text)}\n"
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
        return self._line(dump(transcript))

    def _line(self, values: dict[str, Any]) -> str:
        # A file name need not be UTF-8, but JSON must be.
        name = self.name.encode(errors="backslashreplace").decode()
        return safe_json({"file": name, **values}) + "\n"


class JsonLinesWriter(JsonWriter):
    """An object per segment, as soon as it is decoded."""

    def _text(self, segments: Iterable[Segment]) -> str:
        ordered = sorted(segments, key=attrgetter("start"))
        return "".join(self._line(dump(segment)) for segment in ordered)

    def end(self, transcript: Transcript) -> str:
        return Writer.end(self, transcript)


class TsvWriter(Writer):
    """Whisper's table: start and end in whole milliseconds, and the text."""

    header = "start\tend\ttext\n"

    def _text(self, segments: Iterable[Segment]) -> str:
        return "".join(
            f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t"
            f"{label(segment)}{transcript_line(segment.text)}\n"
            for segment in sorted(segments, key=attrgetter("start"))
        )


class LrcWriter(Writer):
    def _text(self, segments: Iterable[Segment]) -> str:
        ordered = sorted(segments, key=attrgetter("start"))
        return "".join(map(self._line, ordered))

    @staticmethod
    def _line(segment: Segment) -> str:
        minutes, hundredths = divmod(round(segment.start * 100), 6000)
        seconds, hundredths = divmod(hundredths, 100)
        text = label(segment) + transcript_line(segment.text)
        return f"[{minutes:02}:{seconds:02}.{hundredths:02}]{text}\n"


@dataclass(frozen=True, slots=True)
class _Shown:
    """A subtitle to write; times are in milliseconds."""

    start: int
    end: int
    voice: str
    text: str


class SrtWriter(Writer):
    """Cues in order, each with a duration and a text. Only cues of different channels overlap."""

    def __init__(self, name: str, layout: Callable[[], Layout] = Whole) -> None:
        super().__init__(name)
        self._make_layout = layout
        self._layout = layout()
        self._count = 0
        self._last_end: dict[int | None, int] = {}

    def segment(self, segment: Segment) -> str:
        if segment.channel is not None:
            return ""
        return self._written(self._cues(None, self._layout.add(segment)))

    def end(self, transcript: Transcript) -> str:
        rest = self._written(self._cues(None, self._layout.end()))
        return rest + super().end(transcript)

    def _text(self, segments: Iterable[Segment]) -> str:
        found: list[_Shown] = []
        segments = list(segments)
        for channel in {segment.channel for segment in segments}:
            layout = self._make_layout()
            own = [segment for segment in segments if segment.channel == channel]
            cues = [cue for segment in own for cue in layout.add(segment)]
            found += self._cues(channel, cues + layout.end())
        return self._written(sorted(found, key=attrgetter("start", "voice")))

    def _cues(self, channel: int | None, cues: Iterable[Cue]) -> list[_Shown]:
        found = []
        for cue in cues:
            if text := self._lines(cue):
                start = max(round(cue.start * 1000), self._last_end.get(channel, 0))
                end = max(round(cue.end * 1000), start + 1)
                self._last_end[channel] = end
                found.append(_Shown(start, end, _voice(channel, cue.speaker), text))
        return found

    def _lines(self, cue: Cue) -> str:
        """Returns the cue's lines, without empty ones."""
        if cue.marked is None:
            plain = (transcript_line("".join(line)) for line in cue.lines)
            return "\n".join(self._escaped(line) for line in plain if line)
        numbers = count()
        lines = (
            "".join(self._word(word, next(numbers) == cue.marked) for word in line)
            for line in cue.lines
        )
        return "\n".join(filter(None, lines))

    def _word(self, word: str, marked: bool) -> str:
        text = self._escaped(transcript_line(word))
        space = " " if word[:1].isspace() else ""
        return space + (f"<u>{text}</u>" if marked and text else text)

    def _escaped(self, line: str) -> str:
        # SubRip has no escapes; an arrow in the text would look like the times of another cue.
        return line.replace("-->", "->")

    def _written(self, cues: Iterable[_Shown]) -> str:
        return "".join(map(self._cue, cues))

    def _cue(self, cue: _Shown) -> str:
        self._count += 1
        text = _bracketed(cue.voice) + cue.text
        return f"{self._count}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n\n"


class VttWriter(SrtWriter):
    header = "WEBVTT\n\n"

    def _escaped(self, line: str) -> str:
        return html.escape(line, quote=False)

    def _cue(self, cue: _Shown) -> str:
        voice = f"<v {cue.voice.capitalize()}>" if cue.voice else ""
        times = f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}"
        return f"{times}\n{voice}{cue.text}\n\n"


FORMATS: dict[str, type[Writer]] = {
    "txt": TextWriter,
    "json": JsonWriter,
    "srt": SrtWriter,
    "vtt": VttWriter,
    "tsv": TsvWriter,
    "lrc": LrcWriter,
    "jsonl": JsonLinesWriter,
}
SUBTITLES = ("srt", "vtt")


def make_writer(format_: str, name: str, layout: Callable[[], Layout]) -> Writer:
    """Returns the writer of a format; `layout` breaks the lines of subtitles."""
    cls = FORMATS[format_]
    return cls(name, layout) if issubclass(cls, SrtWriter) else cls(name)


def label(segment: Segment) -> str:
    """Returns the label of the segment's channel or speaker, empty without one."""
    return _bracketed(_voice(segment.channel, segment.speaker))


def _voice(channel: int | None, speaker: int | None) -> str:
    """Returns the name of a voice; people count from 1, the protocol counts from 0."""
    if channel is not None:
        return f"channel {channel + 1}"
    return "" if speaker is None else f"speaker {speaker + 1}"


def _bracketed(voice: str) -> str:
    return f"[{voice}] " if voice else ""


def _clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
