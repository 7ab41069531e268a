"""The log-mel spectrogram of a recording that is still being read.

faster-whisper computes the features of the whole recording before it decodes the first window: an
hour costs gigabytes, and many seconds without a chance to cancel. But it asks that array only for
its length and for one window after another, forwards. `LogMel` stands in for the array: it reads
and computes on demand, and forgets the windows that are done. So memory stays flat for hours of
audio.

One thing may differ: faster-whisper raises the quietest places to 80 dB below the loudest of the
whole recording. Here the loudest is the one read so far, unless asrd.engine.peak found a louder
one ahead.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asrd.engine.audio.reader import Samples
from asrd.engine.mel import FFT, FRAMES_PER_SECOND, HOP, framed, log_power, mel_power

WINDOW = 3000
# Word times may lie a little after the window that they come from, and the map of speech
# (asrd.engine.vad) must reach as far as they can.
_AHEAD = WINDOW + FRAMES_PER_SECOND
_STEP = 500
# The logarithm of the power in every band below which there is no sound: -70 dB. 16-bit samples of
# only -1, 0 and 1 stay below it (dither: -80 to -75 dB). Recordings of speech have 0 to 20 dB; no
# person and no model understands them when they are attenuated below this.
_SILENCE = np.float32(-7.0)
# The lowest bands hold the effect of a constant offset of the samples, and no speech.
_OFFSET_BANDS = 2
# The last frames, in which an offset ends with a click, since zeros follow it.
_LAST_FRAMES = 3
# Whisper raises everything that is more than 80 dB below the loudest place to that level.
_DEPTH = np.float32(8.0)
# The silence after the speech in a shortened window, 8 s. Less makes the models repeat themselves.
_MARGIN = 800


class LogMel:
    """Whisper's features, of shape (mels, frames), float32, 100 frames a second.

    `blocks` are an AudioReader's, or the speech of a SpeechFilter; `filters` are the model's mel
    bands. `on_window(frame)` is called before each window is returned; an error that it raises ends
    the transcription. `place` is that of the last window: its first frame, and the end of its
    content (exclusive). `silent` is true if it has no sound that a model could detect. Frames
    before `first_frame` are not kept; nor are they computed if `log_peak`, which an earlier
    attempt knew when it had come so far, is given.

    faster-whisper 1.2 uses it in these lines of `WhisperModel.transcribe` and `generate_segments`
    (tests/engine/test_logmel.py fails if their source changes):

        content_frames = features.shape[-1] - 1               shape, then _Frames.__sub__
        features=features[..., seek:],                        __getitem__ without an end
        segment = features[:, seek : seek + segment_size]     __getitem__ with one
    """

    def __init__(
        self,
        blocks: Iterable[Samples],
        filters: Any,
        on_window: Callable[[int], None],
        first_frame: int = 0,
        log_peak: float | None = None,
    ) -> None:
        self._framed = framed(blocks)
        self._filters = filters
        self._on_window = on_window
        self._ended = False
        # The frames from `_first` to `_end` (exclusive), not yet limited to the peak.
        self._frames = np.zeros((len(filters), 0), np.float32)
        self._first = self._end = 0
        # Frames before this are not needed any more.
        self._needed = first_frame
        self._peak = np.float32(-np.inf if log_peak is None else log_peak)
        # Frames before this are not computed.
        self._computed_from = 0 if log_peak is None else first_frame
        self.place = (0, 0)
        self.silent = False

    def read_ahead(self) -> bool:
        """Computes the first window. Returns False if the recording ended within it."""
        self._reach(self._needed + _AHEAD)
        return not self._ended

    def read_all(self) -> None:
        """Computes and keeps the features of the whole recording: 115 MB an hour for 80 bands."""
        parts, goes_on = [], True
        while goes_on:
            goes_on = self.read_block()
            parts.append(self._frames)
            self._first, self._frames = self._end, self._frames[:, :0]
        self._frames = np.concatenate(parts, axis=1)
        self._first = self._end - self._frames.shape[1]

    def read_block(self) -> bool:
        """Computes the frames of one more block. Returns False if there was none."""
        samples = next(self._framed, None)
        self._ended = samples is None
        if samples is not None and len(samples):
            count = 1 + (len(samples) - FFT) // HOP
            if self._end + count <= self._computed_from:
                self._first = self._end = self._end + count
                return True
            frames = self._spectrum(samples, count)
            self._peak = max(self._peak, frames.max())
            self._frames = np.concatenate((self._frames, frames), axis=1)
            self._end += count
            self._forget(self._needed)
        return not self._ended

    @property
    def log_peak(self) -> float:
        """The decimal logarithm of `peak`."""
        return float(self._peak)

    @property
    def peak(self) -> float:
        """The greatest power in any band of any frame that is known."""
        return float(10.0**self._peak)

    def raise_peak(self, power: float) -> None:
        """Takes a greater power into account, found in a place that is not read yet."""
        self._peak = max(self._peak, log_power(np.float32(power)))

    @property
    def shape(self) -> tuple[int, Any]:
        """The number of bands and of frames: a number once it is known, else a stand-in."""
        return len(self._filters), self._end if self._ended else _Frames(self)

    def __getitem__(self, key: tuple[Any, slice]) -> Any:
        start, stop = key[1].start or 0, key[1].stop
        if stop is None:
            return Tail(self, start)
        self._needed = max(self._needed, start)
        return self.window(start, stop)

    def window(self, start: int, stop: int) -> Any:
        """Returns the frames from `start` to `stop`, without those past the end, and keeps them:
        another window may begin at `start` or later."""
        self._on_window(start)
        self._reach(stop)
        if start < self._first or stop <= start:
            # A clip that begins past the end of the recording.
            start = stop = self._end
        self._forget(min(start, self._needed))
        # The very last frame is padding, which detect_language asks for, and generate_segments not.
        self.place = start, min(stop, self._end - 1) if self._ended else stop
        frames = self._frames[:, start - self._first : stop - self._first]
        floor = self._peak - _DEPTH
        last = max(0, self._end - start - _LAST_FRAMES) if self._ended else None
        heard = frames[_OFFSET_BANDS:, :last]
        self.silent = heard.size == 0 or bool(np.max(heard) <= max(floor, _SILENCE))
        return _normalized(np.maximum(frames, floor))

    def shortened(self, padded: Any) -> Any | None:
        """Returns the last window with a few seconds of silence instead of padding up to 30 s.

        `padded` is that window, padded with zeros by faster-whisper. After the features'
        normalisation zeros are noise, and a short window with them makes Whisper leave out words.
        None if the result would not be shorter.
        """
        content = self.place[1] - self.place[0]
        if content + _MARGIN >= WINDOW:
            return None
        short = padded[:, : content + _MARGIN].copy()
        short[:, content:] = _normalized(max(self._peak - _DEPTH, log_power(np.float32(0))))
        return short

    def content(self, seek: int) -> int:
        """Returns the number of frames from `seek` on, without the last, which is padding: exact
        where less than a window is left, else the number known so far."""
        self._reach(seek + _AHEAD)
        return self._end - 1 - seek

    def ends_before(self, frame: int) -> bool:
        """True if the recording is known to have no sound at `frame`; reads nothing."""
        return self._ended and self._end - 1 < frame

    def seek(self, frame: int) -> int:
        """Returns `content`; all windows to come begin at `frame` or later."""
        self._needed = max(self._needed, frame)
        return self.content(frame)

    def _forget(self, frame: int) -> None:
        count = min(max(0, frame - self._first), self._frames.shape[1])
        self._frames, self._first = self._frames[:, count:], self._first + count

    def _reach(self, frame: int) -> None:
        while self._end < frame and not self._ended:
            self.read_block()

    def _spectrum(self, samples: Samples, count: int) -> Any:
        """In steps that fit the processor's cache, which halves the time."""
        steps = []
        for first in range(0, count, _STEP):
            last = min(first + _STEP, count) - 1
            steps.append(mel_power(samples[first * HOP : last * HOP + FFT], self._filters))
        return log_power(np.concatenate(steps, axis=1))


def _normalized(power: Any) -> Any:
    """Whisper's scale of the logarithm of a power."""
    return (power + np.float32(4)) / np.float32(4)


@dataclass(frozen=True, slots=True)
class Tail:
    """`features[..., start:]`, in which faster-whisper has the language detected."""

    features: LogMel
    start: int


class _Frames:
    """`features.shape[-1]` of a recording whose end is not known yet.

    Answers `content_frames = features.shape[-1] - 1`.
    """

    def __init__(self, features: LogMel) -> None:
        self._features = features

    def __sub__(self, one: int) -> "_Content":
        return _Content(self._features)


class _Content:
    """`content_frames` of faster-whisper, and `seek_clip_end`, which may be the same object.

    Each question reads just far enough for its answer:

        if start_timestamp * self.frames_per_second < content_frames      __gt__, reflected
        if seek_clip_end > content_frames:                    __lt__, reflected, or __gt__ of itself
        content_frames - seek,                                __sub__
        (min(content_frames, seek) - previous_seek)           __gt__, reflected; perhaps __sub__
        if seek >= seek_clip_end:                             __le__, reflected
        float(content_frames * self.feature_extractor.time_per_frame)     __mul__
    """

    def __init__(self, features: LogMel) -> None:
        self._features = features

    def __sub__(self, seek: int) -> int:
        return self._features.seek(seek)

    def __gt__(self, seek: object) -> bool:
        return (
            seek is not self
            and isinstance(seek, int | float)
            and self._features.content(int(seek)) > 0
        )

    def __lt__(self, clip_end: int) -> bool:
        # False while the end is unknown: then a clip that the recording does not reach gives one
        # empty window, after which the end is known.
        return self._features.ends_before(clip_end)

    def __le__(self, seek: int) -> bool:
        return not self > seek

    def __mul__(self, seconds: float) -> float:
        # The total of faster-whisper's own progress bar, which is off. It has another use, with
        # hallucination_silence_threshold; then the whole recording is read first.
        return 0.0
