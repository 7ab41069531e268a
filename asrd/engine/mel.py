"""Whisper's mel spectrum, and a search for its loudest place that computes little of it.

No band of a frame can be louder than the frame's energy allows (Parseval's theorem), and the energy
is a cheap sum. Only frames that could be louder than the loudest known get a spectrum: one or two
in a hundred, so an hour is searched in a tenth of a second.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from asrd.engine.audio.reader import RATE, Samples

FFT, HOP = 400, 160
FRAMES_PER_SECOND = RATE // HOP
# A common divisor of FFT and HOP: a frame is five of these pieces, the next begins two pieces on.
_PIECE = 80
_HANN = np.hanning(FFT + 1)[:-1].astype(np.float32)
# A windowed frame's energy is at most that of its pieces, each times its greatest window weight.
_PIECE_WEIGHTS = (_HANN**2).reshape(-1, _PIECE).max(axis=1)
# A bin's share of the frame's energy: all bins but the first and last stand for two.
_BIN_SHARE = np.full(FFT // 2 + 1, FFT / 2, np.float32)
_BIN_SHARE[[0, -1]] = FFT
_ROUNDING = np.float32(1.001)
_AT_A_TIME = 64
NO_SAMPLES = np.zeros(0, np.float32)


def framed(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Yields for each of `blocks` the samples of the frames that it completes: the first frame
    begins at the first sample, and one follows every HOP. Reads one block ahead, to know the last.

    Pads both ends as Whisper does: reflected, and zeros at the end. The very last frame, which is
    padding alone, is left out.
    """
    rest, begun = NO_SAMPLES, False
    for block, ended in _marked(iter(blocks)):
        samples = np.concatenate((rest, block, np.zeros(HOP if ended else 0, np.float32)))
        before, after = 0, FFT // 2 if ended else 0
        if not begun and (ended or len(samples) > FFT // 2):
            before, begun = FFT // 2, True
        if before or after:
            samples = np.pad(samples, (before, after), mode="reflect")
        count = max(0, 1 + (len(samples) - FFT) // HOP) if begun else 0
        rest = samples[count * HOP :]
        complete = count - 1 if ended else count
        yield samples[: (complete - 1) * HOP + FFT] if complete else NO_SAMPLES


def _marked(blocks: Iterator[Samples]) -> Iterator[tuple[Samples, bool]]:
    """Yields each block, at least one, and True with the last."""
    upcoming = next(blocks, NO_SAMPLES)
    for following in blocks:
        yield upcoming, False
        upcoming = following
    yield upcoming, True


def mel_power(samples: Samples, filters: Any) -> Any:
    """Returns the power per band, of shape (mels, frames); the first frame begins at the first
    sample. The arithmetic is that of faster-whisper's FeatureExtractor up to the logarithm."""
    return _power(_frames(samples), filters)


def log_power(power: Any) -> Any:
    return np.log10(np.clip(power, a_min=1e-10, a_max=None))


def loudest(
    samples: Samples, filters: Any, known: float, most: int | None = None
) -> tuple[float, int]:
    """Returns the greatest `mel_power` of any frame and that frame; (known, -1) if none is greater.

    In steady noise nearly every frame could be the loudest; `most` limits the search to that many
    frames of the greatest energy.
    """
    found = -1
    if len(samples) < FFT:
        return known, found
    frames, bounds = _frames(samples), _bounds(samples, filters)
    promising = np.flatnonzero(bounds > known)
    promising = promising[np.argsort(-bounds[promising])][:most]
    for first in range(0, len(promising), _AT_A_TIME):
        tried = promising[first : first + _AT_A_TIME]
        if bounds[tried[0]] <= known:
            break
        powers = _power(frames[tried], filters).max(axis=0)
        best = int(powers.argmax())
        if powers[best] > known:
            known, found = float(powers[best]), int(tried[best])
    return known, found


def _frames(samples: Samples) -> Any:
    return np.lib.stride_tricks.sliding_window_view(samples, FFT)[::HOP]


def _power(frames: Any, filters: Any) -> Any:
    bins = np.fft.rfft(frames * _HANN, n=FFT, axis=-1).T.astype(np.complex64)
    return filters @ (np.abs(bins) ** 2)


def _bounds(samples: Samples, filters: Any) -> Any:
    """Returns for each frame a power that none of its bands exceeds."""
    count = 1 + (len(samples) - FFT) // HOP
    per_frame = HOP // _PIECE
    pieces = samples[: ((count - 1) * HOP + FFT)].reshape(-1, _PIECE)
    energies = np.einsum("ij,ij->i", pieces, pieces)
    bounds = np.zeros(count, np.float32)
    for first, weight in enumerate(_PIECE_WEIGHTS):
        bounds += weight * energies[first : first + per_frame * count : per_frame][:count]
    return bounds * (_ROUNDING * (filters * _BIN_SHARE).max())
