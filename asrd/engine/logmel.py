"""The log-mel spectrogram of a recording that is still being read.

faster-whisper computes the features of the whole recording before it decodes the first window: an
hour costs it gigabytes and many seconds in which nobody can cancel. But its loop
(`WhisperModel.generate_segments`) asks that array only for its length and for one window after
another, forwards. `LogMel` stands in for the array: it reads and computes when it is asked, and
forgets what lies behind. Seek points, prompts, temperatures and segments stay faster-whisper's.

One thing may differ: faster-whisper raises the quietest places to 80 dB under the loudest of the
whole recording. Here the loudest is known as far as it was read, or somebody has looked ahead for
it (asrd.engine.peak).
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from asrd.engine.audio.reader import Samples
from asrd.engine.mel import FFT, FRAMES_PER_SECOND, HOP, framed, log_power, mel_power

WINDOW = 3000
# Word times may lie a little behind the window that they come from; the map of speech
# (asrd.engine.vad) must know as far as they can.
_AHEAD = WINDOW + FRAMES_PER_SECOND
_STEP = 500
# Power in every band, as a logarithm, under which there is no sound: -70 dB. 16-bit samples of
# nothing but -1, 0 and 1 stay under it (dither: -80 to -75 dB). Recordings of speech have 0 to
# 20 dB; attenuated so far that they come under it, nobody and no model understands them.
_SILENCE = np.float32(-7.0)
# The lowest bands hold what a constant offset of the samples gives, and no speech.
_OFFSET_BANDS = 2
# The last frames, in which an offset ends with a click, since zeros follow it.
_LAST_FRAMES = 3
# Whisper raises all that is 80 dB under the loudest place to that level.
_DEPTH = np.float32(8.0)


class LogMel:
    """Whisper's features, shape (mels, frames) of float32, 100 frames a second.

    `blocks` come from a Recording, or are what the VAD left of its blocks; `filters` are the
    model's mel bands. `on_window(frame)` is called before each window is handed out; what it raises
    ends the transcription. `silent` is true if the last window has no sound that a model could see.
    """

    def __init__(
        self, blocks: Iterable[Samples], filters: Any, on_window: Callable[[int], None]
    ) -> None:
        self._framed = framed(blocks)
        self._filters = filters
        self._on_window = on_window
        self._ended = False
        # The frames from `_first` to `_end` (exclusive), not yet limited to the peak.
        self._frames = np.zeros((len(filters), 0), np.float32)
        self._first = self._end = 0
        self._peak = np.float32(-np.inf)
        self.silent = False

    def read_ahead(self) -> bool:
        """Compute the first window; whether the recording goes on behind what was read for it."""
        self._reach(_AHEAD)
        return not self._ended

    def read_block(self) -> bool:
        """Compute what one more block gives; whether there was one."""
        samples = next(self._framed, None)
        self._ended = samples is None
        if samples is not None and len(samples):
            self._add(self._spectrum(samples))
        return not self._ended

    @property
    def peak(self) -> float:
        """The greatest power in any band of any frame that is known."""
        return float(10.0**self._peak)

    def hear_of(self, power: float) -> None:
        """That a place not read yet is so loud."""
        self._peak = max(self._peak, log_power(np.float32(power)))

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
        frames = self._frames[:, : stop - start]
        floor = self._peak - _DEPTH
        last = max(0, self._end - start - _LAST_FRAMES) if self._ended else None
        heard = frames[_OFFSET_BANDS:, :last]
        self.silent = heard.size == 0 or bool(np.max(heard) <= max(floor, _SILENCE))
        window = np.maximum(frames, floor)
        window += 4.0
        window /= 4.0
        return window

    def _content(self, seek: int) -> int:
        """Frames from `seek` on, without the last one, which is padding: exact where fewer than a
        window are left, else as many as are known yet."""
        self._reach(seek + _AHEAD)
        return self._end - 1 - seek

    def _reach(self, frame: int) -> None:
        while self._end < frame and not self._ended:
            self.read_block()

    def _forget(self, frame: int) -> None:
        self._frames = self._frames[:, frame - self._first :]
        self._first = frame

    def _add(self, frames: Any) -> None:
        self._peak = max(self._peak, frames.max())
        known = self._frames
        self._frames = np.concatenate((known, frames), axis=1) if known.size else frames
        self._end += frames.shape[1]

    def _spectrum(self, samples: Samples) -> Any:
        """In steps that stay in the processor's cache, which takes half the time."""
        count = 1 + (len(samples) - FFT) // HOP
        steps = []
        for first in range(0, count, _STEP):
            last = min(first + _STEP, count) - 1
            steps.append(mel_power(samples[first * HOP : last * HOP + FFT], self._filters))
        return log_power(np.concatenate(steps, axis=1))


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
