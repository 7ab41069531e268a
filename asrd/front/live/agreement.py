"""The words of a live stream that will not change: those on which two hypotheses agree. Pure.

LocalAgreement-2 (Macháček, Dabre and Bojar: Turning Whisper into Real-Time Transcription System,
2023, arXiv 2307.14743). The audio that is kept, its *tail*, is decoded again and again as it grows.
The longest common prefix of two hypotheses in a row is committed; the rest is pending.

1. Words that were committed come again as long as their audio is in the tail. What is new begins
   behind the last place where the hypothesis repeats the last committed words, or else behind the
   time of the last one.
2. No word that ends just before the end of the audio is committed: it may be half of one.
3. A tail longer than `CUT_SECONDS` is cut behind the last segment that is committed to its end. A
   tail as long as Whisper's window is cut in any case, and what stands before the cut is committed
   without a second hypothesis.

All times are in seconds from the start of the stream.
"""

import string
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, takewhile
from typing import NamedTuple

from asrd.wire.records import WINDOW_SECONDS, Segment, Word

CUT_SECONDS = 15.0
# The end of the audio in which no word is committed; more if there is no second hypothesis.
_UNCERTAIN_SECONDS, _UNCERTAIN_ALONE_SECONDS = 0.4, 1.0
# In a longer tail, the end of a word will do for a cut.
_LATE_CUT_SECONDS = 25.0
# Silence that is kept: a word may have begun in it.
_KEPT_SECONDS = 5.0
# The committed words that are looked for in a hypothesis, and how far they may have moved.
_REPEATED_WORDS, _MOVED_SECONDS = 5, 1.0
# The text before the tail that prompts the model; text of the tail itself would make it skip that.
_SAID_MAX = 200
# Nobody says more within a window, in words and in letters.
_WORDS_MAX, _LETTERS_MAX = 200, 2000
# More than times lose by rounding.
_ROUNDING_SECONDS = 0.001
_MARKS = string.punctuation + "…“”„«»‘’¿¡。，、！？：；「」"  # noqa: RUF001


class Step(NamedTuple):
    """The words that a hypothesis committed, and those pending."""

    committed: list[Word]
    pending: list[Word]


class Agreement:
    """The state of one stream. The tail begins at `begin`; `said` is the last text before it."""

    def __init__(self) -> None:
        self.begin = 0.0
        self.said = ""
        # The end of the last committed word.
        self.until = 0.0
        # The committed words of the tail, and the pending ones of the last hypothesis.
        self._committed: list[Word] = []
        self._pending: list[Word] = []

    def hear(self, segments: Sequence[Segment], end: float, last: bool = False) -> Step:
        """Takes the hypothesis of the tail up to `end`; of the `last` one all words are committed.

        Moves `begin` if the tail has become too long.
        """
        words = [word for segment in segments for word in segment.words or ()]
        new = words[self._repeated(words) :]
        full = end - self.begin >= WINDOW_SECONDS - _ROUNDING_SECONDS
        count = len(new)
        if not last:
            # Two hypotheses of all that a window holds would be the same.
            count = count if full else _agreeing(self._pending, new)
            certain = end - (_UNCERTAIN_ALONE_SECONDS if full else _UNCERTAIN_SECONDS)
            count = min(count, len(list(takewhile(lambda word: word.end <= certain, new))))
        committed, pending = self._in_order(new[:count]), _first(new[count:])
        self._committed = _first((self._committed + committed)[::-1])[::-1]
        # Both hypotheses must have heard silence to drop it.
        heard = bool(pending or self._pending)
        self._pending = pending
        ends = [segment.end for segment in segments]
        place = self._place_of_cut(ends, heard, end)
        # No word is so long: a full window always makes room.
        self._cut(max(place, end - _LATE_CUT_SECONDS) if full else place)
        return Step(committed, pending)

    def _in_order(self, words: list[Word]) -> list[Word]:
        """Returns the words with times that do not go back."""
        ordered = []
        for word in words:
            start = max(word.start, self.until)
            self.until = max(word.end, start)
            ordered.append(replace(word, start=start, end=self.until))
        return ordered

    def _repeated(self, words: list[Word]) -> int:
        """Returns the number of words at the beginning that are committed already."""
        best, place = (0, 0.0), 0
        known = [_normal(word) for word in self._committed[-_REPEATED_WORDS:]]
        heard = [_normal(word) for word in words]
        for count in range(1, len(words) + 1):
            moved = abs(words[count - 1].end - self.until)
            same = _common_end(known, heard[max(0, count - _REPEATED_WORDS) : count])
            # A single word may also be the next one, the same again.
            certain = same > 1 or words[count - 1].start < self.until
            if same and certain and moved < _MOVED_SECONDS:
                best, place = max((best, place), ((same, -moved), count))
        if place:
            return place
        return len(list(takewhile(lambda word: word.start + word.end < 2 * self.until, words)))

    def _place_of_cut(self, ends: Sequence[float], heard: bool, end: float) -> float:
        length = end - self.begin
        if length <= CUT_SECONDS:
            return self.begin
        if not heard and self.until < end - 2 * _KEPT_SECONDS:
            return max(self.until, end - _KEPT_SECONDS)
        whole = max((each for each in ends if self.begin < each <= self.until), default=None)
        if whole is not None:
            return whole
        return self.until if length > _LATE_CUT_SECONDS else self.begin

    def _cut(self, place: float) -> None:
        self.begin = max(self.begin, place)
        gone = list(takewhile(lambda word: word.end <= self.begin, self._committed))
        del self._committed[: len(gone)]
        said = self.said + "".join(word.word for word in gone)
        if len(said) > _SAID_MAX:
            # Without the half word at the cut, if words have spaces.
            _, _, whole = said[-_SAID_MAX:].partition(" ")
            said = whole or said[-_SAID_MAX:]
        self.said = said


def _first(words: Sequence[Word]) -> list[Word]:
    """Returns the first words, no more than somebody can say: a worker's answer may have any."""
    letters = accumulate(len(word.word) for word in words)
    pairs = zip(words[:_WORDS_MAX], letters, strict=False)
    return [word for word, count in pairs if count <= _LETTERS_MAX]


def _normal(word: Word) -> str:
    """Returns the word without case, marks and spaces; a word of marks alone as it is."""
    text = word.word.strip().casefold()
    return text.strip(_MARKS) or text


def _agreeing(before: Sequence[Word], now: Sequence[Word]) -> int:
    """Returns the length of the longest common prefix."""
    pairs = zip(before, now, strict=False)
    return len(list(takewhile(lambda pair: _normal(pair[0]) == _normal(pair[1]), pairs)))


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the length of the longest common suffix."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
