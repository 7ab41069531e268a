"""The log-mel spectrogram of a recording that is still being read.

faster-whisper computes the features of the whole recording before it decodes the first window: an
hour costs it gigabytes and many seconds in which nobody can cancel. But its loop
(`WhisperModel.generate_segments`) asks that array only for its length and for one window after
another, forwards. `LogMel` stands in for the array: it reads and computes when it is asked, and
forgets what lies behind. Seek points, prompts, temperatures and segments stay faster-whisper's.

One thing must differ: faster-whisper raises the quietest places to 80 dB under the loudest of the
whole recording, and here the loudest is known only as far as it was read. So some minutes are read
ahead: a recording of up to `READ_AHEAD_SECONDS` gives the very same numbers, and a longer one whose
loudest place lies in them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from asrd.worker.audio import BLOCK_SECONDS, RATE, Samples

HOP = 160
FRAMES_PER_SECOND = RATE // HOP
# How much of the recording is read before the first window. It costs 0.07 s for PCM, 0.3 s for MP3,
# 0.6 s for Opus, and 0.6 s more with the VAD.
READ_AHEAD_SECONDS = 300
_WINDOW = 3000
# Word times may lie a little behind the window that they come from; the map of speech
# (asrd.worker.vad) must know as far as they can.
_AHEAD = _WINDOW + FRAMES_PER_SECOND
_FFT = 400
_STEP = 500
_HANN = np.hanning(_FFT + 1)[:-1].astype(np.float32)
_NOTHING = np.zeros(0, np.float32)


class LogMel:
    """Whisper's features, shape (mels, frames) of float32, 100 frames a second.

    `blocks` come from a Recording, or are what the VAD left of its blocks. `extractor` is
    faster-whisper's FeatureExtractor. `on_window(frame)` is called before each window is handed
    out; what it raises ends the transcription.
    """

    def __init__(
        self, blocks: Iterator[Samples], extractor: Any, on_window: Callable[[int], None]
    ) -> None:
        self._blocks = _marked(blocks)
        self._extractor = extractor
        self._on_window = on_window
        # Blocks that must be read before the first window.
        self._ahead = READ_AHEAD_SECONDS // BLOCK_SECONDS
        self._begun = self._ended = False
        # The samples that the next frames share with the last ones.
        self._rest = _NOTHING
        # The frames from `_first` to `_end` (exclusive), not yet limited to the peak.
        self._frames = np.zeros((len(extractor.mel_filters), 0), np.float32)
        self._first = self._end = 0
        self._peak = np.float32(-np.inf)

    def read_ahead(self) -> None:
        """Read what must be known before the first window."""
        self._reach(0)

    @property
    def shape(self) -> tuple[int, Any]:
        self.read_ahead()
        return len(self._frames), self._end if self._ended else _Frames(self._content)

    def __getitem__(self, key: tuple[Any, slice]) -> Any:
        start, stop = key[1].start or 0, key[1].stop
        if stop is None:
            return self  # `features[..., 0:]`, all of it
        self._on_window(start)
        self._reach(stop)
        self._forget(start)
        window = np.maximum(self._frames[:, : stop - start], self._peak - 8.0)
        window += 4.0
        window /= 4.0
        return window

    def _content(self, seek: int) -> int:
        """Frames from `seek` on, without the last one, which is padding: exact where fewer than a
        window are left, else as many as are known yet."""
        self._reach(seek + _AHEAD)
        return self._end - 1 - seek

    def _reach(self, frame: int) -> None:
        while (self._ahead > 0 or self._end < frame) and not self._ended:
            self._ahead -= 1
            self._read_block()

    def _forget(self, frame: int) -> None:
        self._frames = self._frames[:, frame - self._first :]
        self._first = frame

    def _read_block(self) -> None:
        """The recording is padded at both ends as Whisper does: reflected, and zeros at the end."""
        block, self._ended = next(self._blocks)
        parts = [self._rest, block]
        if self._ended:
            parts.append(np.zeros(HOP, np.float32))
        samples = np.concatenate(parts)
        before, after = 0, _FFT // 2 if self._ended else 0
        if not self._begun and (self._ended or len(samples) > _FFT // 2):
            before, self._begun = _FFT // 2, True
        if before or after:
            samples = np.pad(samples, (before, after), mode="reflect")
        count = max(0, 1 + (len(samples) - _FFT) // HOP) if self._begun else 0
        self._rest = samples[count * HOP :]
        if count:
            # The last frame of all is padding alone.
            self._add(self._spectrum(samples, count - 1 if self._ended else count))

    def _add(self, frames: Any) -> None:
        self._peak = max(self._peak, frames.max())
        known = self._frames
        self._frames = np.concatenate((known, frames), axis=1) if known.size else frames
        self._end += frames.shape[1]

    def _spectrum(self, samples: Samples, count: int) -> Any:
        """The same arithmetic as FeatureExtractor.__call__, up to the logarithm; in steps that
        stay in the processor's cache, which takes half the time."""
        steps = []
        for first in range(0, count, _STEP):
            last = min(first + _STEP, count) - 1
            bins = self._extractor.stft(
                samples[first * HOP : last * HOP + _FFT],
                *(_FFT, HOP),
                window=_HANN,
                center=False,
                return_complex=True,
            ).astype(np.complex64)
            steps.append(self._extractor.mel_filters @ (np.abs(bins) ** 2))
        return np.log10(np.clip(np.concatenate(steps, axis=1), a_min=1e-10, a_max=None))


def _marked(blocks: Iterator[Samples]) -> Iterator[tuple[Samples, bool]]:
    """Each block, at least one, and whether it is the last."""
    upcoming = next(blocks, _NOTHING)
    for following in blocks:
        yield upcoming, False
        upcoming = following
    yield upcoming, True


class _Frames:
    """`shape[-1]` of a recording whose end is not known yet: one more than its content."""

    def __init__(self, left: Callable[[int], int]) -> None:
        self._left = left

    def __sub__(self, one: int) -> "_Content":
        return _Content(self._left)


class _Content:
    """How many frames there are, as far as `generate_segments` asks: how many are left from a
    seek point on, and whether any are. Each question reads just far enough to be answered."""

    def __init__(self, left: Callable[[int], int]) -> None:
        self._left = left

    def __sub__(self, seek: int) -> int:
        return self._left(seek)

    def __gt__(self, seek: object) -> bool:
        # It is also compared with itself, as the end of the one clip that there is.
        return seek is not self and isinstance(seek, int | float) and self._left(int(seek)) > 0

    def __le__(self, seek: int) -> bool:
        return not self > seek

    def __mul__(self, seconds: float) -> float:
        return 0.0  # the total of faster-whisper's own progress bar, which is off
