"""A conversation of three real speakers, joined from recordings, and how well turns fit it."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from asrd.engine.audio.reader import RATE, Samples
from asrd.wire.records import Segment
from tests.support.real.speech import clips

# Who says what, with pauses of half a second.
_TALK = (
    *("spk1_snt1", "spk2_snt1", "spk1_snt2", "austen-0870"),
    *("spk2_snt2", "spk1_snt3", "austen-0880", "spk2_snt3"),
)
SPEAKERS = 3


class Conversation(NamedTuple):
    """`parts` are (start, end, speaker) in seconds; speakers are numbered as they appear."""

    samples: Samples
    parts: list[tuple[float, float, int]]


def conversation(seconds: float = 0.0) -> Conversation:
    """Returns the conversation, repeated until it lasts so long. Raises Missing."""
    found = clips()
    numbers: dict[str, int] = {}
    pieces: list[Samples] = []
    parts: list[tuple[float, float, int]] = []
    at = 0.0
    while at < seconds or not parts:
        for name in _TALK:
            audio = found[f"{name}.wav"].audio
            end = at + len(audio) / RATE
            parts.append((at, end, numbers.setdefault(name[:4], len(numbers))))
            pieces += [audio, np.zeros(RATE // 2, np.float32)]
            at = end + 0.5
    return Conversation(np.concatenate(pieces), parts)


def wrong_share(talk: Conversation, turns: Iterable[Segment]) -> float:
    """Returns the share of the parts' time that is not given to their speaker. Recordings have
    silence at their ends, which nobody speaks."""
    turns = list(turns)
    wrong = total = 0.0
    for start, end, speaker in talk.parts:
        right = sum(
            max(0.0, min(end, turn.end) - max(start, turn.start))
            for turn in turns
            if turn.speaker == speaker
        )
        wrong += max(0.0, end - start - right)
        total += end - start
    return wrong / total
