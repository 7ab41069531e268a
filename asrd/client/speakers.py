"""Words and speakers, joined by their times. Pure.

The task `speakers` finds turns: segments without text, each with the number of its speaker. A
transcript of the same recording has words. `Speakers` gives each word to the speaker whose turn has
most of it, else to the nearest turn, and cuts segments where the speaker changes.

    options = {"language": "en", "word_timestamps": True}
    turns = client.transcribe("talk.mp3", **search_options(options))
    transcript = Speakers(turns.segments).transcript(client.transcribe("talk.mp3", **options))
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate, count, groupby
from operator import attrgetter
from typing import Any

from asrd.client.attempts import JobOptions
from asrd.wire.client_events import Transcript
from asrd.wire.records import Segment, Word

# The options of a transcript that also concern the search for its speakers.
_SHARED = (
    *("job_id", "trace_id", "user", "timeout", "encoding", "sample_rate", "channels"),
    *("audio_track", "require_complete", "on_progress"),
)


def search_options(options: JobOptions, num_speakers: int | None = None) -> JobOptions:
    """Returns the options with which a recording's speakers are found, if `options` are those of
    its transcript."""
    found: Any = {name: value for name, value in options.items() if name in _SHARED}
    search: JobOptions = found
    search["task"], search["num_speakers"] = "speakers", num_speakers
    return search


def options_after(options: JobOptions, seconds: float) -> JobOptions:
    """Returns the options for what is left of their timeout after so many seconds."""
    timeout = options.get("timeout")
    if timeout is None:
        return options
    # What is too late gets the daemon's answer.
    return {**options, "timeout": max(0.001, timeout - seconds)}


class Speakers:
    """The turns of one recording. `speakers` is the number of speakers."""

    def __init__(self, turns: Iterable[Segment]) -> None:
        """`turns`: the segments of a transcript with the task `speakers`."""
        found = [turn for turn in turns if turn.speaker is not None]
        self._turns = sorted(found, key=attrgetter("start"))
        self._starts = [turn.start for turn in self._turns]
        # The latest end of the turns up to each one: those before it can't reach further.
        self._reach = list(accumulate((turn.end for turn in self._turns), max))
        self._numbers = count(1)
        self.speakers = len({turn.speaker for turn in self._turns})

    def label(self, segment: Segment) -> list[Segment]:
        """Returns the segment with its speaker, or its parts if several speak; numbered from 1 over
        all calls. Without the times of its words it is not cut."""
        return [replace(part, id=next(self._numbers)) for part in self._parts(segment)]

    def transcript(self, transcript: Transcript) -> Transcript:
        """Returns the transcript with speakers; its segments are numbered from 1."""
        parts = (part for segment in transcript.segments for part in self._parts(segment))
        segments = tuple(replace(part, id=number) for number, part in enumerate(parts, 1))
        return replace(transcript, segments=segments)

    def _parts(self, segment: Segment) -> Iterator[Segment]:
        if not segment.words:
            yield replace(segment, speaker=self._speaker(segment.start, segment.end))
            return
        words = [
            replace(word, speaker=self._speaker(word.start, word.end)) for word in segment.words
        ]
        groups = [tuple(group) for _, group in groupby(words, attrgetter("speaker"))]
        if len(groups) == 1:
            yield replace(segment, words=groups[0], speaker=groups[0][0].speaker)
            return
        for index, group in enumerate(groups):
            start = group[0].start if index else segment.start
            end = group[-1].end if index + 1 < len(groups) else segment.end
            yield _part(segment, group, start, end)

    def _speaker(self, start: float, end: float) -> int | None:
        """Returns the speaker with most of this time, else the nearest one; None if there is no
        speaker at all."""
        best, speaker = -math.inf, None
        for turn in self._candidates(start, end):
            # Negative for a gap between them.
            overlap = min(end, turn.end) - max(start, turn.start)
            if overlap > best:
                best, speaker = overlap, turn.speaker
        return speaker

    def _candidates(self, start: float, end: float) -> Iterator[Segment]:
        """Yields the turns that overlap this time, and the nearest one on each side."""
        behind = bisect_left(self._starts, end)
        if behind < len(self._turns):
            yield self._turns[behind]
        for index in range(behind - 1, -1, -1):
            yield self._turns[index]
            if index == 0 or self._reach[index - 1] <= start:
                break
        # The last turn that ends before it may have begun long before others.
        index = bisect_left(self._reach, self._reach[behind - 1]) if behind else -1
        if index >= 0:
            yield self._turns[index]


def _part(segment: Segment, words: tuple[Word, ...], start: float, end: float) -> Segment:
    """Returns the part of a segment with these words. The tokens are those of the whole."""
    return replace(
        segment,
        start=start,
        end=end,
        text="".join(word.word for word in words),
        words=words,
        speaker=words[0].speaker,
        tokens=None,
    )
