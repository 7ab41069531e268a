"""The base of all recordings: blocks of one length, the limit of seconds, and warnings."""

import bisect
import math
from abc import abstractmethod
from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from asrd.engine.audio.samples import SampleChecks
from asrd.errors import BadAudio, TooLarge
from asrd.wire.fds import Closing
from asrd.wire.records import JobWarning

Samples = NDArray[np.float32]

RATE = 16_000
# The length of a block, the same for every source: how far a recording is known may change its text
# a little (asrd.engine.peak), and that must not depend on the size of its packets.
BLOCK_SECONDS = 10


_NO_PIECES: Generator[Samples, None, None] = (piece for piece in list[Samples]())


class AudioReader(Closing):
    """Iterate once for the samples; close it in any case.

    Attributes:
        seconds: what was read so far.
        total_seconds: None while it is unknown; a container's claim may be a little wrong.
        packets: the packets decoded so far, which are what reading costs.
        channels: the channels of the source.
        warnings: complete once everything was read.
        gaps: (start, end) in seconds, in order, of the silence that replaces missing audio.
    """

    def __init__(self, total_seconds: float | None, max_seconds: float, channels: int) -> None:
        self.total_seconds = total_seconds
        self.channels = channels
        self.packets = 0
        self.warnings: list[JobWarning] = []
        self.gaps: list[tuple[float, float]] = []
        self._max_seconds = max_seconds
        self._samples = 0
        self._checks = SampleChecks()
        self._pieces = self._read()

    def __iter__(self) -> Iterator[Samples]:
        """Blocks of BLOCK_SECONDS, the last one shorter. Raises BadAudio, TooLarge."""
        wanted = BLOCK_SECONDS * RATE
        held: list[Samples] = []
        count = 0
        for samples in self._pieces:
            self._samples += len(samples)
            self._refuse_longer(self.seconds)
            self._checks.seconds = self.seconds
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
        """Returns the part of a cue in which speech is possible: Whisper often begins the first cue
        at 0, even if there is a gap."""
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
        """Nothing must be decoded, resampled or mixed, so it is cheap to read `again`."""

    @abstractmethod
    def again(self) -> "AudioReader":
        """Returns a `plain` recording, of which a block was read, from its start."""

    @abstractmethod
    def _read(self) -> Generator[Samples, None, None]: ...

    def close(self) -> None:
        # The generator holds this recording, and FFmpeg's resampler with its threads, which must
        # not stay until the garbage collector runs. From Python 3.12 on, a generator that never
        # started keeps its arguments when it is closed, so it is dropped, too.
        self._pieces.close()
        self._pieces = _NO_PIECES

    def _refuse_longer(self, seconds: float) -> None:
        if seconds > self._max_seconds:
            raise TooLarge(
                f"audio: lasts more than the {self._max_seconds:g} seconds that are allowed"
            )
