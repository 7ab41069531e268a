"""The text of `--color`: words of which the model was not sure have a colour on a terminal."""

import math
import os
import sys
from collections.abc import Iterable
from operator import attrgetter

from asrd.asrctl.progress import can_redraw
from asrd.formats import TextWriter, label
from asrd.safe_text import transcript_line
from asrd.wire.records import Segment

# Red and yellow, for probabilities below these.
_COLORS = ((0.4, "\x1b[31m"), (0.7, "\x1b[33m"))
_END = "\x1b[39m"


def wanted() -> bool:
    """Returns True if stdout shows colours; see https://no-color.org for NO_COLOR."""
    return can_redraw(sys.stdout) and not os.environ.get("NO_COLOR")


class ColorWriter(TextWriter):
    """Colours words by their probability; without words, segments by that of their tokens."""

    def _text(self, segments: Iterable[Segment]) -> str:
        return "".join(
            f"{label(segment)}{_coloured(segment)}\n"
            for segment in sorted(segments, key=attrgetter("start"))
        )


def _coloured(segment: Segment) -> str:
    if not segment.words:
        mean = 1.0 if segment.avg_logprob is None else math.exp(min(0.0, segment.avg_logprob))
        return _painted(transcript_line(segment.text), mean)
    return "".join(_word(word.word, word.probability) for word in segment.words).lstrip()


def _word(word: str, probability: float) -> str:
    text = transcript_line(word)
    return " " * word[:1].isspace() + _painted(text, probability)


def _painted(text: str, probability: float) -> str:
    color = next((color for below, color in _COLORS if probability < below), None)
    return text if color is None or not text else f"{color}{text}{_END}"
