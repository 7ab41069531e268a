"""The loudest place of a recording, found before its first window is transcribed.

Whisper's features are floored at 80 dB under the loudest place of the whole recording, so that
place must be known first, or the text may differ. How far it is looked for depends on what the
recording is, never on how fast the machine is:

- One that costs next to nothing to read (`Recording.plain`) is read twice: the first half hour is
  searched, all of it for five minutes, then only among the frames of most energy.
- Any other is decoded ahead, for five minutes or so many packets, which are what it costs (AAC and
  MP3: about three minutes; Opus: two and a half), searched, and kept until its turn comes.

What is louder still further on counts from there on.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, AudioReader, Samples
from asrd.engine.mel import HOP, framed, loudest
from asrd.engine.vad import SpeechFilter

SEARCHED_SECONDS = 1800
READ_AHEAD_SECONDS = 300
READ_AHEAD_PACKETS = 7500
# With the VAD only speech counts, and judging all that is read ahead would take a second. So much
# is judged as it is for the transcript; behind it, the loudest places of a few blocks, with what
# lies around them. (Their frames lie a few milliseconds differently: the power found may be off by
# a little.)
SPEECH_SECONDS = 90
_JUDGED = 4
_BEFORE, _AFTER = 4 * RATE, 3 * RATE
# Behind the first five minutes, of the 1,000 frames of a block.
_SEARCHED_FRAMES = 64
_NOTHING = np.zeros(0, np.float32)


class ReadAhead:
    """The blocks of a recording, the first of which may be read before their turn."""

    def __init__(self, recording: AudioReader, blocks: Iterable[Samples]) -> None:
        self._recording = recording
        self._blocks = iter(blocks)
        self._held: deque[Samples] = deque()
        self.given = 0

    def __iter__(self) -> Iterator[Samples]:
        """`given` counts them."""
        while True:
            block = self._held.popleft() if self._held else next(self._blocks, None)
            if block is None:
                return
            self.given += 1
            yield block

    def hold(self) -> tuple[list[Samples], int]:
        """What was read ahead, and how many blocks of it may be searched: unless the recording ends
        there, the last is needed to know what lies at the end of the one before."""
        wanted = READ_AHEAD_SECONDS // BLOCK_SECONDS
        while len(self._held) <= wanted and self._recording.packets <= READ_AHEAD_PACKETS:
            block = next(self._blocks, None)
            if block is None:
                return list(self._held), wanted
            self._held.append(block)
        return list(self._held), len(self._held) - 1


def search(blocks: Iterable[Samples], count: int, filters: Any, known: float) -> float:
    """The greatest power in the first `count` blocks, if it is more than what is `known`."""
    for samples, most in _framed(blocks, count):
        known, _ = loudest(samples, filters, known, most)
    return known


def search_speech(
    blocks: Iterable[Samples], count: int, filters: Any, known: float, session: Any
) -> float:
    """The same for speech alone. `session` as in SpeechFilter."""
    for power, clip in _loud_places(blocks, count, filters, known):
        if power > known:
            speech = np.concatenate((_NOTHING, *SpeechFilter([clip], session)))
            known, _ = loudest(speech, filters, known)
    return known


def _loud_places(
    blocks: Iterable[Samples], count: int, filters: Any, known: float
) -> list[tuple[float, Samples]]:
    """The greatest powers of the loudest blocks, the loudest first, and what is heard there."""
    places: list[tuple[float, Samples]] = []
    blocks, again = itertools.tee(blocks)
    before = _NOTHING
    for (samples, most), block in zip(_framed(blocks, count), again, strict=False):
        power, frame = loudest(samples, filters, known, most)
        if frame >= 0:
            here = len(before) + frame * HOP
            clip = np.concatenate((before, block))[max(0, here - _BEFORE) : here + _AFTER]
            places = sorted([*places, (power, clip)], key=lambda place: -place[0])[:_JUDGED]
            if len(places) == _JUDGED:
                known = places[-1][0]
        before = block
    return places


def _framed(blocks: Iterable[Samples], count: int) -> Iterator[tuple[Samples, int | None]]:
    """What `framed` gives for the first `count`, and how many frames of it to search."""
    exact = READ_AHEAD_SECONDS // BLOCK_SECONDS
    for index, samples in enumerate(itertools.islice(framed(blocks), count)):
        yield samples, None if index < exact else _SEARCHED_FRAMES
