"""Subtitles: a transcript's words in cues and lines. Pure.

Whole         a cue per segment, on one line
Readable      cues that can be read in time: at most 2 lines of 42 characters, 1 to 7 seconds
WhisperRules  the line rules of Whisper's own program

Times are in seconds. A segment without words gets estimated ones, in proportion to its letters.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from unicodedata import east_asian_width

from asrd.wire.records import Segment, Word

LINE_WIDTH = 42
LINES = 2
SHORTEST, LONGEST = 1.0, 7.0

# A bound on the work for a peer's empty words.
_CUE_WORDS = 100
_PIECES = re.compile(r"\s*\S+")
_CLOSING = "\"'\u201d\u2019»)]}"
# The last ones are those of Chinese and Japanese.
_SENTENCE_ENDS = tuple(".?!…\u3002\uff1f\uff01")
_CLAUSE_ENDS = tuple(",;:—\u3001\uff0c\uff1b\uff1a")
# Costs. Only their proportions matter.
_CUE, _BROKEN_PHRASE, _BROKEN_CLAUSE, _PAUSE_INSIDE, _TOO_SHORT = 10.0, 9.0, 3.0, 25.0, 15.0
# For each cell by which one line is wider than the other.
_UNBALANCED = 0.25
_PAUSE, _LONG_PAUSE = 0.4, 1.5


@dataclass(frozen=True, slots=True)
class Cue:
    """A subtitle: the words of each line. `marked` is the number of the word that is spoken,
    `speaker` that of the speaker of all."""

    start: float
    end: float
    lines: tuple[tuple[str, ...], ...]
    marked: int | None = None
    speaker: int | None = None


class Layout(ABC):
    """Makes cues of segments, in the order of their times. One for each recording and channel."""

    @abstractmethod
    def add(self, segment: Segment) -> list[Cue]:
        """Returns the cues that are complete."""

    def end(self) -> list[Cue]:
        """Returns the rest, after the last segment."""
        return []


class Whole(Layout):
    def add(self, segment: Segment) -> list[Cue]:
        return [Cue(segment.start, segment.end, ((segment.text,),), speaker=segment.speaker)]


class Readable(Layout):
    """Breaks a segment where a sentence, a clause or a breath ends, if one is near."""

    def __init__(self) -> None:
        self._short: Cue | None = None

    def add(self, segment: Segment) -> list[Cue]:
        cues = self.end_before(segment.start)
        words = words_of(segment)
        found = [_cue(words[first:last]) for first, last in _cuts(words)]
        for cue, follower in zip(found, [*found[1:], None], strict=False):
            if cue.end - cue.start >= SHORTEST:
                cues.append(cue)
            elif follower is not None:
                cues.append(_lengthened(cue, follower.start))
            else:
                # It may stay longer, but not into the next segment.
                self._short = cue
        return cues

    def end(self) -> list[Cue]:
        return self.end_before(float("inf"))

    def end_before(self, start: float) -> list[Cue]:
        """Returns the cue that was kept back, if there is one."""
        cue, self._short = self._short, None
        return [] if cue is None else [_lengthened(cue, start)]


@dataclass(frozen=True, slots=True)
class Rules:
    """Whisper's --max-line-width (characters), --max-line-count, --max-words-per-line and
    --highlight-words."""

    width: int | None = None
    count: int | None = None
    words: int | None = None
    highlight: bool = False


class WhisperRules(Layout):
    """With a width and a count, cues are filled regardless of segments, and end at a pause of
    Whisper's 3 seconds. Otherwise each segment begins a cue. So does each speaker."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._joins = rules.width is not None and rules.count is not None
        self._lines: list[list[Word]] = []
        self._room = 0
        self._last_start: float | None = None

    def add(self, segment: Segment) -> list[Cue]:
        return [cue for group in self._groups(segment) for cue in self._shown(group)]

    def end(self) -> list[Cue]:
        lines, self._lines = self._lines, []
        return list(self._shown(lines))

    def _groups(self, segment: Segment) -> Iterator[list[list[Word]]]:
        """Adds the segment's words, and yields the lines of each cue that they complete."""
        width = self._rules.width or 1000
        chunk = self._rules.words or 1000
        for index, word in enumerate(words_of(segment)):
            last = word.start if self._last_start is None else self._last_start
            pause = self._joins and word.start - last > 3.0
            begins = not self._joins and index % chunk == 0 and bool(self._lines)
            begins |= bool(self._lines) and word.speaker != self._lines[-1][-1].speaker
            self._last_start = word.start
            if self._lines and len(word.word) <= self._room and not pause and not begins:
                self._lines[-1].append(word)
                self._room -= len(word.word)
                continue
            full = self._rules.count is not None and len(self._lines) >= self._rules.count
            if self._lines and (begins or full or (pause and self._rules.count is not None)):
                yield self._lines
                self._lines = []
            text = word.word.strip()
            self._lines.append([replace(word, word=text)])
            self._room = width - len(text)

    def _shown(self, lines: list[list[Word]]) -> Iterator[Cue]:
        words = [word for line in lines for word in line]
        if not words:
            return
        texts = tuple(tuple(word.word for word in line) for line in lines)
        speaker = words[0].speaker
        if not self._rules.highlight:
            yield Cue(words[0].start, words[-1].end, texts, speaker=speaker)
            return
        last = words[0].start
        for index, word in enumerate(words):
            if last != word.start:
                yield Cue(last, word.start, texts, speaker=speaker)
            yield Cue(word.start, word.end, texts, index, speaker)
            last = word.end


def words_of(segment: Segment) -> list[Word]:
    """Returns the segment's words, or estimated ones; empty for a segment without text."""
    if segment.words:
        return list(segment.words)
    pieces = [
        part
        for piece in _PIECES.findall(segment.text)
        # Scripts without spaces may be broken anywhere.
        for part in ([piece] if cells(piece) <= LINE_WIDTH else piece)
    ]
    letters = sum(map(len, pieces)) or 1
    words, done = [], 0
    for piece in pieces:
        begin, done = done, done + len(piece)
        length = segment.end - segment.start
        start, end = (segment.start + length * at / letters for at in (begin, done))
        words.append(Word(start, end, piece, 0.0, segment.speaker))
    return words


def cells(text: str) -> int:
    """Returns the width of a text: a Chinese, Japanese or Korean character takes two cells."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _cuts(words: list[Word]) -> list[tuple[int, int]]:
    """Returns the ranges of words that make the best cues, all costs together."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for last in range(1, len(words) + 1):
        ways = []
        for first in range(last - 1, max(-1, last - 1 - _CUE_WORDS), -1):
            part = words[first:last]
            if len(part) > 1 and not _fits(part):
                break
            ways.append((best[first][0] + _cost(part, words[last : last + 1]), first))
        best.append(min(ways))
    ranges = []
    last = len(words)
    while last:
        first = best[last][1]
        ranges.append((first, last))
        last = first
    return ranges[::-1]


def _fits(part: list[Word]) -> bool:
    return part[-1].end - part[0].start <= LONGEST and _lines(part) is not None


def _cost(part: list[Word], follower: list[Word]) -> float:
    cost = _CUE + _TOO_SHORT * max(0.0, SHORTEST - (part[-1].end - part[0].start))
    cost += sum(_PAUSE_INSIDE for one, two in pairwise(part) if two.start - one.end > _LONG_PAUSE)
    return cost + (_break_cost(part[-1], follower[0]) if follower else 0.0)


def _break_cost(word: Word, follower: Word) -> float:
    """Returns the cost of a break between two words: none where a sentence ends."""
    text = word.word.rstrip().rstrip(_CLOSING)
    if text.endswith(_SENTENCE_ENDS) or follower.start - word.end >= _PAUSE:
        return 0.0
    return _BROKEN_CLAUSE if text.endswith(_CLAUSE_ENDS) else _BROKEN_PHRASE


def _lines(part: list[Word]) -> tuple[int, ...] | None:
    """Returns where the lines after the first one begin, or None if the words need too many."""
    if _width(part) <= LINE_WIDTH:
        return ()
    ways = [
        (_UNBALANCED * abs(one - two) + _break_cost(part[at - 1], part[at]), at)
        for at in range(1, len(part))
        if (one := _width(part[:at])) <= LINE_WIDTH and (two := _width(part[at:])) <= LINE_WIDTH
    ]
    return (min(ways)[1],) if ways else None


def _width(part: list[Word]) -> int:
    return cells("".join(word.word for word in part).strip())


def _cue(part: list[Word]) -> Cue:
    # A single word may be wider than a line, or last long in the model's opinion.
    bounds = [0, *(_lines(part) or ()), len(part)]
    texts = tuple(tuple(word.word for word in part[a:b]) for a, b in pairwise(bounds))
    end = min(part[-1].end, part[0].start + LONGEST)
    return Cue(part[0].start, end, texts, speaker=part[0].speaker)


def _lengthened(cue: Cue, limit: float) -> Cue:
    """Returns the cue with the shortest time that can be read, if that ends before `limit`."""
    return replace(cue, end=max(cue.end, min(cue.start + SHORTEST, limit)))
