"""Checks of decoded samples: broken values, and channels that cancel each other out."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asrd.errors import BadAudio, WarningCode
from asrd.wire.records import JobWarning

# Far above any honest sample (1.0 is full scale); float32 overflows in the spectrum above it.
LOUDEST = 65_536.0
# One broken value in a hundred is a broken recorder; more is not audio. A share of fewer than ten
# seconds says nothing while more may come: a burst is no worse at the start than later.
_BAD_SHARE, _BAD_SECONDS = 0.01, 10
# The power of the sum of all channels must be under this share of the loudest channel's. Only
# channels that are each other's negative do that (the mix of two is then 20 dB under the channel).
# A channel and a silent one leave all of its power, and two voices leave more.
_CANCELLED = 0.04
# Below -80 dB, three steps of 16-bit samples, rounding may look like anything.
_QUIET = 1e-8
# One frame in so many is looked at first: 20 us instead of 2 ms for ten seconds.
STEP = 16


class SampleChecks:
    """The checks of one recording, and their results. `seconds`: what was read before the samples
    that are checked next."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._seen = 0
        self._bad = 0
        self._first_bad: float | None = None
        # Values in a second.
        self._rate = 0
        self._cancelled: float | None = None
        # The last decision, which holds while the recording is too quiet to decide.
        self._channel: int | None = None

    def replaced(self, samples: NDArray[Any], channels: int, rate: int) -> NDArray[Any]:
        """Returns interleaved floats with 0 for each broken value; the same array if none is.

        Raises BadAudio if too many are.
        """
        before, self._seen = self._seen, self._seen + samples.size
        # One comparison finds NaN, too: it is never <=.
        if not samples.size or max(samples.max(), -samples.min()) <= LOUDEST:
            return samples
        good = np.abs(samples) <= LOUDEST
        self._bad += samples.size - int(np.count_nonzero(good))
        self._rate = channels * rate
        if self._first_bad is None:
            self._first_bad = (before + int(np.argmin(good.ravel()))) / self._rate
        self._refuse_many(_BAD_SECONDS)
        return np.where(good, samples, samples.dtype.type(0))

    def _refuse_many(self, seconds: int) -> None:
        if self._bad > _BAD_SHARE * max(self._seen, seconds * self._rate):
            raise BadAudio(
                f"audio: {self._bad} of the first {self._seen} samples are not a number, "
                f"infinite, or beyond ±{LOUDEST:g}"
            )

    def to_keep(self, few: NDArray[Any], whole: Callable[[], NDArray[Any]]) -> int | None:
        """Returns the one channel to keep of frames, shape (count, channels); None to mix them.

        `few` are every STEPth of the frames, and `whole` returns all.
        """
        found = _cancelling(few)
        if isinstance(found, int):
            found = _cancelling(whole())
        if found is not None:
            self._channel = found if isinstance(found, int) else None
        if self._channel is not None and self._cancelled is None:
            self._cancelled = self.seconds
        return self._channel

    def warnings(self) -> list[JobWarning]:
        """Returns the warnings about a recording that was read to its end. Raises BadAudio if too
        much of it is broken."""
        self._refuse_many(1)
        found = []
        if self._bad:
            text = (
                f"audio: silence replaces samples that are not a number, infinite, or beyond "
                f"±{LOUDEST:g} ({self._bad}, the first at {self._first_bad or 0.0:.3f} s)"
            )
            found.append(JobWarning(WarningCode.SAMPLES_REPLACED, text))
        if self._cancelled is not None:
            text = (
                f"audio: from {self._cancelled:.0f} s on the channels cancel each other out "
                "(one is another with its sign inverted), so only one of them is used there"
            )
            found.append(JobWarning(WarningCode.CHANNELS_CANCEL_OUT, text))
        return found


def _cancelling(frames: NDArray[Any]) -> int | Literal["mix"] | None:
    """Returns the loudest channel if the mix is far quieter, "mix" if it is not, and None if all
    channels are too quiet."""
    # Dot products of contiguous rows are ten times as fast.
    channels = np.ascontiguousarray(frames.T)
    powers = [float(channel @ channel) / len(frames) for channel in channels]
    loudest = powers.index(max(powers))
    if not powers[loudest] > _QUIET:
        return None
    mixed = channels.sum(axis=0)
    alone = _CANCELLED * powers[loudest]
    return loudest if float(mixed @ mixed) / len(frames) < alone else "mix"


def mixed(frames: NDArray[Any], channel: int | None) -> NDArray[np.float32]:
    """Returns one channel of `frames`, shape (count, channels), the last for a number that is not
    there; the mean of all for None."""
    if channel is not None:
        return np.ascontiguousarray(frames[:, min(channel, frames.shape[1] - 1)])
    mean: NDArray[np.float32] = frames.mean(axis=1, dtype=np.float32)
    return mean
