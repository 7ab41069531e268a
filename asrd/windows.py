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

from asrd.audio import RATE, Samples

HOP = 160
FRAMES_PER_SECOND = RATE // HOP
# What is read before the first window: costs 0.07 s for PCM, 0.3 s for MP3, 0.6 s for Opus.
READ_AHEAD_SECONDS = 300
# What is read at a time.
BLOCK_SECONDS = 60
_WINDOW = 3000
# Word times may lie a little behind the window that they come from; the map of speech
# (asrd.vad) must know as far as they can.
_AHEAD = _WINDOW + FRAMES_PER_SECOND
_FFT = 400
_STEP = 500
_HANN = np.hanning(_FFT + 1)[:-1].astype(np.float32)
_NOTHING = np.zeros(0, np.float32)


class LogMel:
    """Whisper's features, shape (mels, frames) of float32, 100 frames a second.

    `extractor` is faster-whisper's FeatureExtractor. `on_window(frame)` is called before each
    window is handed out; what it raises ends the transcription.
    """

    def __init__(
        self,
        blocks: Iterator[Samples],
        extractor: Any,
        on_window: Callable[[int], None],
        read_ahead_seconds: int = READ_AHEAD_SECONDS,
    ) -> None:
        self._blocks = blocks
        self._extractor = extractor
        self._on_window = on_window
        self._read_ahead = read_ahead_seconds * FRAMES_PER_SECOND
        # What the next frames share with the last ones; what was read, but is not needed yet.
        self._rest = self._unread = _NOTHING
        self._begun = self._ended = False
        # The frames from `_first` to `_end` (exclusive), not yet limited to the peak.
        self._frames = np.zeros((len(extractor.mel_filters), 0), np.float32)
        self._first = self._end = 0
        self._peak = np.float32(-np.inf)

    def read_ahead(self) -> None:
        """Read what is read before the first window."""
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
        while self._end < max(frame, self._read_ahead) and not self._ended:
            frames = self._spectrum(self._next_samples())
            self._peak = max(self._peak, frames.max())
            known = self._frames
            self._frames = np.concatenate((known, frames), axis=1) if known.size else frames
            self._end += frames.shape[1]

    def _forget(self, frame: int) -> None:
        self._frames = self._frames[:, frame - self._first :]
        self._first = frame

    def _next_samples(self) -> Samples:
        """The samples of the next frames, padded at both ends of the recording as Whisper does.

        As many at a time whatever the blocks' lengths: a recording's text must not depend on
        the way in which it came.
        """
        before = 0 if self._begun else _FFT // 2
        self._begun = True
        wanted = len(self._rest) + BLOCK_SECONDS * RATE + before
        parts, count = [self._rest, self._unread], len(self._rest) + len(self._unread)
        while count <= wanted and not self._ended:
            block = next(self._blocks, None)
            self._ended = block is None
            parts.append(np.zeros(HOP, np.float32) if block is None else block)
            count += len(parts[-1])
        samples = np.concatenate(parts)
        if not self._ended:
            samples, self._unread = samples[:wanted], samples[wanted:]
        return np.pad(samples, (before, _FFT // 2 if self._ended else 0), mode="reflect")

    def _spectrum(self, samples: Samples) -> Any:
        """The same arithmetic as FeatureExtractor.__call__, up to the logarithm; in steps that
        stay in the processor's cache, which takes half the time."""
        count = 1 + (len(samples) - _FFT) // HOP
        self._rest = samples[count * HOP :]
        if self._ended:
            count -= 1
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
