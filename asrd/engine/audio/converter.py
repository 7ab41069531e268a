"""Decoded frames to 16 kHz mono."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from asrd.engine.audio.containers import reason
from asrd.engine.audio.pcm import arrays
from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.audio.samples import STEP, SampleChecks, mixed
from asrd.errors import BadAudio

# Converted at a time: one call for many frames, since most codecs' frames are only 20 ms long; and
# few enough bytes that a thousand channels or a million samples a second are no gigabytes.
_SECONDS = 10
_BYTES = 1 << 24
# Any other resampled second would be absurdly large, or no recorder ever wrote it.
_RATES = range(1_000, 1_000_001)
_INT16 = np.float32(1 / 32_768)
# PyAV reads behind the list of planes of a frame that has so many of them.
_PLANES = 8
# The type of a sample of each format but s64, its value for silence and that of full scale.
_TYPES = {
    "u8": ("u1", 128, 128),
    "s16": ("i2", 0, 1 << 15),
    "s32": ("i4", 0, 1 << 31),
    "flt": ("f4", 0, 1),
    "dbl": ("f8", 0, 1),
}


class Converter:
    """Converts by way of 16 bit, as faster-whisper decodes files. `channel`: the only one to take;
    None for the mix of all. Frames may change their format."""

    def __init__(self, checks: SampleChecks, channel: int | None) -> None:
        self._checks = checks
        self._chosen = channel
        # Name, layout and rate.
        self._format: tuple[str, str, int] | None = None

    def _begin(self, frame: Any) -> None:
        if frame.sample_rate not in _RATES:
            raise BadAudio(f"audio: a sample rate of {frame.sample_rate} Hz")
        self._fifo = av.AudioFifo()
        self._resampler = _resampler()
        self._channels = frame.layout.nb_channels
        self._channel = self._chosen if self._channels > 1 else None
        # FFmpeg can't take a single channel, nor mix those that have no names.
        self._by_hand = self._channel is not None
        self._started = False
        size = frame.format.bytes * self._channels
        self._enough = max(1, min(_SECONDS * frame.sample_rate, _BYTES // size))

    def convert(self, frame: Any) -> Iterator[Samples]:
        """Yields what is complete; the rest comes later. Raises BadAudio."""
        format_ = (frame.format.name, frame.layout.name, frame.sample_rate)
        if format_ != self._format:
            yield from self.finish()
            self._begin(frame)
            self._format = format_
        # Packed floats are as somebody wrote them; planar ones come from a codec, which is bounded.
        if frame.format.name in ("flt", "dbl"):
            frame = self._without_nonsense(frame)
        if format_ == ("s16", "mono", RATE):
            yield from _scaled([frame])
            return
        frame.pts = None
        self._fifo.write(frame)
        while self._fifo.samples >= self._enough:
            yield from self._resample(self._fifo.read(self._enough))

    def finish(self) -> Iterator[Samples]:
        """Yields the rest."""
        if self._format is None:
            return
        if self._fifo.samples:
            yield from self._resample(self._fifo.read())
        yield from _scaled(self._resampler.resample(None))
        self._format = None

    def _without_nonsense(self, frame: Any) -> Any:
        samples = frame.to_ndarray()
        good = self._checks.replaced(samples, self._channels, frame.sample_rate)
        return frame if good is samples else _like(frame, good)

    def _resample(self, frame: Any) -> Iterator[Samples]:
        try:
            frames = self._resampler.resample(self._mono(frame))
        except (av.FFmpegError, ValueError) as error:
            if self._by_hand or self._started:
                format_ = f"{frame.layout.name} of {frame.format.name} at {frame.sample_rate} Hz"
                raise BadAudio(f"audio: {format_} can't be made mono: {reason(error)}") from None
            self._by_hand, self._resampler = True, _resampler()
            frames = self._resampler.resample(self._mono(frame))
        self._started = True
        yield from _scaled(frames)

    def _mono(self, frame: Any) -> Any:
        """Returns the frame, or what FFmpeg must mix instead."""
        keep = self._channel
        if keep is None and self._channels > 1 and frame.format.packed.name in _TYPES:
            keep = self._checks.to_keep(_few(frame), lambda: _floats(frame))
        if self._by_hand:
            return _frame(mixed(_floats(frame), keep), "mono", frame.sample_rate)
        if keep is None:
            return frame
        # If all channels are the one to keep, so is their mix. Another resampler would make a seam.
        return _like(frame, _floats(frame)[:, [keep] * self._channels])


def _resampler() -> Any:
    return av.AudioResampler(format="s16", layout="mono", rate=RATE)


def _scaled(frames: list[Any]) -> Iterator[Samples]:
    for samples in arrays(frames):
        yield samples * _INT16


def _frame(samples: NDArray[Any], layout: Any, rate: int) -> Any:
    """Returns interleaved floats as a frame."""
    row = np.ascontiguousarray(samples, np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(row, "flt", layout)
    frame.sample_rate = rate
    return frame


def _like(frame: Any, samples: NDArray[Any]) -> Any:
    """Returns interleaved floats as a frame of the same format."""
    made = _frame(samples, frame.layout, frame.sample_rate)
    [like] = av.AudioResampler(frame.format, frame.layout, frame.sample_rate).resample(made)
    return like


def _floats(frame: Any) -> Samples:
    """Returns all samples, shape (count, channels). Raises ValueError, FFmpegError."""
    [packed] = av.AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    samples: NDArray[Any] = packed.to_ndarray()
    return samples.reshape(-1, frame.layout.nb_channels)


def _few(frame: Any) -> Samples:
    """Returns every STEPth of all samples, without a copy of the others."""
    kind, zero, full = _TYPES[frame.format.packed.name]
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        values = np.frombuffer(frame.planes[0], kind, channels * frame.samples)
        few = values.reshape(-1, channels)[::STEP]
    elif channels < _PLANES:
        planes = [np.frombuffer(plane, kind, frame.samples)[::STEP] for plane in frame.planes]
        few = np.stack(planes, axis=1)
    else:
        return _floats(frame)[::STEP]
    return (few.astype(np.float32) - np.float32(zero)) / np.float32(full)
