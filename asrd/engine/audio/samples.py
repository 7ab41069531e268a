"""Checks of decoded samples: values that are no sound, and channels that cancel each other out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asrd.errors import BadAudio, WarningCode
from asrd.wire.records import JobWarning

# Far above any honest sample (1.0 is full scale); float32 overflows in the spectrum above it.
LOUDEST = 65_536.0
# One value in a hundred is a broken recorder; more is not audio. As long as more may come, ten
# seconds are the least that this is a share of: a burst is no worse at the start than later.
_BAD_SHARE, _BAD_SECONDS = 0.01, 10
# The sum of the channels must have less than this share of the loudest one's power: only channels
# that are each other's negative do that (for two, the mix is then 20 dB under the channel). A
# channel beside a silent one leaves all of its power, and two voices leave more.
_CANCELLED = 0.04
# Below -80 dB, three steps of 16-bit samples, rounding may look like anything.
_QUIET = 1e-8
# One frame in so many is looked at first: 20 us instead of 2 ms for ten seconds.
STEP = 16


class SampleChecks:
    """The checks of one recording, and what they found."""

    def __init__(self) -> None:
        self._seen = 0
        self._bad = 0
        self._first: float | None = None
        self._one_second = 0
        self._cancelled: float | None = None
        # For what is too quiet to decide.
        self._channel: int | None = None

    def replaced(self, samples: NDArray[Any], channels: int, rate: int) -> NDArray[Any]:
        """Interleaved floats with 0 for each that is no sample; the same array if all are.

        Raises BadAudio if too many are not.
        """
        before, self._seen = self._seen, self._seen + samples.size
        # One comparison finds NaN, too: it is never <=.
        if not samples.size or max(samples.max(), -samples.min()) <= LOUDEST:
            return samples
        good = np.abs(samples) <= LOUDEST
        self._bad += samples.size - int(np.count_nonzero(good))
        if self._first is None:
            self._first = (before + int(np.argmin(good.ravel()))) / channels / rate
        self._one_second = channels * rate
        self._refuse_many(_BAD_SECONDS)
        return np.where(good, samples, samples.dtype.type(0))

    def _refuse_many(self, seconds: int) -> None:
        if self._bad > _BAD_SHARE * max(self._seen, seconds * self._one_second):
            raise BadAudio(
                f"audio: {self._bad} of the first {self._seen} samples are not a number, "
                f"infinite, or beyond ±{LOUDEST:g}"
            )

    def to_keep(
        self, few: NDArray[Any], whole: Callable[[], NDArray[Any]], at: float
    ) -> int | None:
        """The one channel to keep of frames, shape (count, channels); None to mix them.

        `few` are every STEPth of them, and `whole` gives all.
        """
        found = _cancelling(few)
        if isinstance(found, int):
            found = _cancelling(whole())
        if found is not None:
            self._channel = found if isinstance(found, int) else None
        if self._channel is not None and self._cancelled is None:
            self._cancelled = at
        return self._channel

    def warnings(self) -> list[JobWarning]:
        """Warnings about a recording that was read to its end. Raises BadAudio if too much of it is
        damaged."""
        self._refuse_many(1)
        found = []
        if self._bad:
            found.append(
                JobWarning(
                    WarningCode.SAMPLES_REPLACED,
                    f"audio: silence replaces samples that are not a number, infinite, or beyond "
                    f"±{LOUDEST:g} ({self._bad}, the first at {self._first or 0.0:.3f} s)",
                )
            )
        if self._cancelled is not None:
            found.append(
                JobWarning(
                    WarningCode.CHANNELS_CANCEL_OUT,
                    f"audio: from {self._cancelled:.0f} s on the channels cancel each other out "
                    "(one is another with its sign inverted), so only one of them is used there",
                )
            )
        return found


def _cancelling(frames: NDArray[Any]) -> int | str | None:
    """The loudest channel if the mix is far quieter; "mix" if not; None if all is too quiet."""
    # Each channel in a row of its own: dot products of such are ten times as fast.
    channels = np.ascontiguousarray(_scaled(frames).T)
    powers = [float(channel @ channel) / len(frames) for channel in channels]
    loudest = powers.index(max(powers))
    if not powers[loudest] > _QUIET:
        return None
    mixed = channels.sum(axis=0)
    alone = _CANCELLED * powers[loudest]
    return loudest if float(mixed @ mixed) / len(frames) < alone else "mix"


def _scaled(values: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of any of FFmpeg's formats as floats, full scale 1.0."""
    kind = values.dtype
    if kind.kind == "f":
        return values.astype(np.float32, copy=False)
    if kind.kind == "u":
        return (values.astype(np.float32) - np.float32(128)) * np.float32(1 / 128)
    return values.astype(np.float32) * np.float32(2.0 ** (1 - 8 * kind.itemsize))


def averaged(frames: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of all channels of `frames`, shape (count, channels)."""
    mixed: NDArray[np.float32] = _scaled(frames).mean(axis=1, dtype=np.float32)
    return mixed


def one_channel(frames: NDArray[Any], channel: int) -> NDArray[np.float32]:
    """One channel of `frames`; the last for a number that is not there."""
    return np.ascontiguousarray(_scaled(frames[:, min(channel, frames.shape[1] - 1)]))
