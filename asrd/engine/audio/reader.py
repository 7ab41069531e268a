"""The base of every recording: its samples in blocks of one length, its limit, its warnings."""

import bisect
import math
from abc import abstractmethod
from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from asrd.errors import BadAudio, TooLarge
from asrd.wire.fds import Closing
from asrd.wire.records import JobWarning

Samples = NDArray[np.float32]

RATE = 16_000
# The length of a block, whatever the source: how far ahead a recording is known may change its
# text a little (asrd.engine.peak), and that must not depend on the size of its packets.
BLOCK_SECONDS = 10


class AudioReader(Closing):
    """Iterate once for the samples; close it in any case.

    Attributes: `seconds` read so far; `total_seconds`, None while nobody knows (a container's own
    word for it may be a little wrong); `packets` decoded so far, which is what reading costs;
    `channels` of the source; `warnings`, complete once everything was read; `gaps` (start, end) of
    silence that stands for what is missing, in seconds and in order.
    """

    def __init__(self, total_seconds: float | None, max_seconds: float, channels: int) -> None:
        self.total_seconds = total_seconds
        self.channels = channels
        self.packets = 0
        self.warnings: list[JobWarning] = []
        self.gaps: list[tuple[float, float]] = []
        self._max_seconds = max_seconds
        self._samples = 0
        self._pieces = self._read()

    def __iter__(self) -> Iterator[Samples]:
        """Blocks of BLOCK_SECONDS, the last one shorter. Raises BadAudio, TooLarge."""
        wanted = BLOCK_SECONDS * RATE
        held: list[Samples] = []
        count = 0
        for samples in self._pieces:
            self._samples += len(samples)
            self._refuse_longer(self.seconds)
            held.append(samples)
            count += len(samples)
            if count >= wanted:
                joined = np.concatenate(held) if len(held) > 1 else samples
                while count >= wanted:
                    yield joined[:wanted]
                    joined, count = joined[wanted:], count - wanted
                held = [joined]
        if not self._samples:
            raise BadAudio("audio: there is none in it")
        self.total_seconds = self.seconds
        if count:
            yield np.concatenate(held)

    @property
    def seconds(self) -> float:
        return self._samples / RATE

    def outside_gaps(self, start: float, end: float) -> tuple[float, float]:
        """The part of a cue in which something can have been said: Whisper likes to begin the first
        one at 0, however long nothing is heard."""
        before_end = bisect.bisect_left(self.gaps, (end,)) - 1
        if before_end >= 0:
            gap_start, gap_end = self.gaps[before_end]
            if start < gap_start and end <= gap_end:
                end = gap_start
        before_start = bisect.bisect_right(self.gaps, (start, math.inf)) - 1
        if before_start >= 0 and start < self.gaps[before_start][1] < end:
            start = self.gaps[before_start][1]
        return start, end

    @property
    @abstractmethod
    def plain(self) -> bool:
        """Nothing is to be decoded, resampled or mixed, so that it may be read `again`."""

    @abstractmethod
    def again(self) -> "AudioReader":
        """A `plain` recording of which a block was read, from its start."""

    @abstractmethod
    def _read(self) -> Generator[Samples, None, None]: ...

    def close(self) -> None:
        # It holds this recording, and FFmpeg's resampler with its threads: left to the garbage
        # collector, they would outlive the job by as long as it pleases.
        self._pieces.close()

    def _refuse_longer(self, seconds: float) -> None:
        if seconds > self._max_seconds:
            raise TooLarge(
                f"audio: lasts more than the {self._max_seconds:g} seconds that are allowed"
            )
