"""The loudest place of a recording, found before its first window is transcribed.

Whisper's features are floored at 80 dB below the loudest place of the whole recording, so that
place must be known first, or the text may differ. How far the search goes depends on the kind of
recording, never on the speed of the machine:

- A recording that costs next to nothing to read (`AudioReader.plain`) is read twice: the first half
  hour is searched, for five minutes completely, then only among the frames with the most energy.
- Any other is decoded ahead for five minutes, or for a number of packets, which are what decoding
  costs (AAC and MP3: about three minutes; Opus: two and a half). It is searched, and kept until it
  is transcribed.
- With the VAD only speech counts. Any recording is then read ahead so far, and its speech is kept;
  behind that, only the loudest places of a plain one are judged.

A louder place after that counts from there on.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, AudioReader, Samples
from asrd.engine.mel import HOP, NO_SAMPLES, framed, loudest
from asrd.engine.vad import SpeechFilter, Vad

SEARCHED_SECONDS = 1800
READ_AHEAD_SECONDS = 300
READ_AHEAD_PACKETS = 7500
# With the VAD, the loudest places of so many blocks are judged behind the speech that is kept, with
# some audio around them. (Their frames are shifted by a few milliseconds, so the power found may be
# off by a little.)
_JUDGED = 4
_BEFORE, _AFTER = 4 * RATE, 3 * RATE
_SHORTEST_MS = 1000
# After the first five minutes, of the 1,000 frames of a block.
_SEARCHED_FRAMES = 64
# One more block has the end of the speech.
_READ_AHEAD_BLOCKS = READ_AHEAD_SECONDS // BLOCK_SECONDS + 1


class ReadAhead:
    """The blocks of a recording, or the speech in each, the first of which may be read early."""

    def __init__(self, recording: AudioReader, blocks: Iterable[Samples]) -> None:
        self._recording = recording
        self._blocks = iter(blocks)
        self._held: deque[Samples] = deque()

    def __iter__(self) -> Iterator[Samples]:
        while True:
            block = self._held.popleft() if self._held else next(self._blocks, None)
            if block is None:
                return
            yield block

    def hold(self) -> tuple[list[Samples], int]:
        """Reads ahead. Returns the blocks, and how many of them to search: unless the recording
        ends there, the last only completes the frames of the one before."""
        wanted = _READ_AHEAD_BLOCKS
        while len(self._held) <= wanted and self._recording.packets <= READ_AHEAD_PACKETS:
            block = next(self._blocks, None)
            if block is None:
                return list(self._held), wanted
            self._held.append(block)
        return list(self._held), len(self._held) - 1


def search(
    blocks: Iterable[Samples], count: int, filters: Any, known: float, vad: Vad | None = None
) -> float:
    """Returns the greatest power in the first `count` blocks, or `known` if that is greater.

    With `vad`, the blocks are those behind the speech that is kept, and only speech counts.
    """
    if vad is None:
        for index, samples in enumerate(itertools.islice(framed(blocks), count)):
            most = None if index < _READ_AHEAD_BLOCKS else _SEARCHED_FRAMES
            known, _ = loudest(samples, filters, known, most)
        return known
    # A clip shows no more than this of a longer chunk.
    shortest = min(vad.options.min_speech_duration_ms, _SHORTEST_MS)
    vad = replace(vad, options=replace(vad.options, min_speech_duration_ms=shortest))
    for power, clip in _loud_places(blocks, count, filters, known):
        if power > known:
            speech = np.concatenate((NO_SAMPLES, *SpeechFilter([clip], vad)))
            known, _ = loudest(speech, filters, known)
    return known


def _loud_places(
    blocks: Iterable[Samples], count: int, filters: Any, known: float
) -> list[tuple[float, Samples]]:
    """Returns the greatest powers of the loudest blocks, the loudest first, each with the audio
    around it."""
    places: list[tuple[float, Samples]] = []
    blocks, again = itertools.tee(blocks)
    before = NO_SAMPLES
    searched = itertools.islice(framed(blocks), count)
    for samples, block in zip(searched, again, strict=False):
        power, frame = loudest(samples, filters, known, _SEARCHED_FRAMES)
        if frame >= 0:
            here = len(before) + frame * HOP
            clip = np.concatenate((before, block))[max(0, here - _BEFORE) : here + _AFTER]
            places = sorted([*places, (power, clip)], key=lambda place: -place[0])[:_JUDGED]
            if len(places) == _JUDGED:
                known = places[-1][0]
        before = block
    return places
