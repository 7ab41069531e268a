"""Decoded frames of one format to 16 kHz mono."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from asrd.engine.audio.pcm import arrays
from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.audio.samples import STEP, SampleChecks, averaged, one_channel
from asrd.errors import BadAudio

# Converted at a time: one call for many frames, since most codecs' frames are only 20 ms long; and
# few enough bytes that a thousand channels or a million samples a second are no gigabytes.
_SECONDS = 10
_BYTES = 1 << 24
# Outside of these a resampled second would be absurdly large, or no recorder ever wrote it.
_RATES = range(1_000, 1_000_001)
_INT16 = np.float32(1 / 32_768)
# PyAV reads behind the list of planes of a frame that has so many of them.
_PLANES = 8
# Those that PyAV makes arrays of (not s64); planar ones have a p behind their name.
_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}


class Converter:
    """16 bit, as faster-whisper decodes files. `channel`: the only one that counts, if any;
    `start`: the second of the recording at which the first frame begins."""

    def __init__(self, frame: Any, checks: SampleChecks, channel: int | None, start: float) -> None:
        if frame.sample_rate not in _RATES:
            raise BadAudio(f"audio: a sample rate of {frame.sample_rate} Hz")
        self._format = _format(frame)
        self._checks = checks
        self._fifo = av.AudioFifo()
        self._resampler = _resampler()
        self._finished = self._format == ("s16", "mono", RATE)
        self._channels = frame.layout.nb_channels
        self._channel = channel if self._channels > 1 else None
        self._by_hand = self._channel is not None
        self._start = start
        self._converted = 0
        size = frame.format.bytes * self._channels
        self._enough = max(1, min(_SECONDS * frame.sample_rate, _BYTES // size))

    def takes(self, frame: Any) -> bool:
        return _format(frame) == self._format

    def convert(self, frame: Any) -> Iterator[Samples]:
        # Packed floats are as somebody wrote them; planar ones come from a codec, which is bounded.
        if frame.format.name in ("flt", "dbl"):
            frame = self._without_nonsense(frame)
        if self._finished:
            yield from _scaled([frame])
            return
        frame.pts = None
        self._fifo.write(frame)
        while self._fifo.samples >= self._enough:
            yield from self._resample(self._fifo.read(self._enough))

    def finish(self) -> Iterator[Samples]:
        if self._fifo.samples:
            yield from self._resample(self._fifo.read())
        yield from _scaled(self._resampler.resample(None))

    def _without_nonsense(self, frame: Any) -> Any:
        samples = frame.to_ndarray()
        good = self._checks.replaced(samples, self._channels, frame.sample_rate)
        return frame if good is samples else _like(frame, good)

    def _resample(self, frame: Any) -> Iterator[Samples]:
        format_, layout, rate = self._format
        first = not self._converted
        try:
            try:
                frames = self._resampler.resample(self._mono(frame))
            except (av.FFmpegError, ValueError):
                if self._by_hand or not first:
                    raise
                # FFmpeg can't mix channels that have no names.
                self._by_hand = True
                self._resampler = _resampler()
                frames = self._resampler.resample(self._mono(frame))
        except (av.FFmpegError, ValueError) as error:
            raise BadAudio(
                f"audio: {layout} of {format_} at {rate} Hz can't be made mono: {said(error)}"
            ) from None
        self._converted += frame.samples
        yield from _scaled(frames)

    def _mono(self, frame: Any) -> Any:
        """The frame, or what FFmpeg is to mix instead."""
        keep = self._channel
        if keep is None and self._channels > 1 and frame.format.packed.name in _DTYPES:
            at = self._start + self._converted / frame.sample_rate
            keep = self._checks.to_keep(_few(frame), lambda: _interleaved(frame), at)
        if self._by_hand:
            frames = _interleaved(frame)
            mono = averaged(frames) if keep is None else one_channel(frames, keep)
            made = av.AudioFrame.from_ndarray(mono[np.newaxis], format="flt", layout="mono")
            made.sample_rate = frame.sample_rate
            return made
        if keep is None:
            return frame
        # All channels are the one that is kept, and so is their mix: changing the resampler would
        # make a seam.
        return _like(frame, _interleaved(frame)[:, [keep] * self._channels])


def _format(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _resampler() -> Any:
    return av.AudioResampler(format="s16", layout="mono", rate=RATE)


def _scaled(frames: list[Any]) -> Iterator[Samples]:
    for samples in arrays(frames):
        yield samples * _INT16


def _like(frame: Any, interleaved: NDArray[Any]) -> Any:
    """A frame of other samples."""
    channels = frame.layout.nb_channels
    shaped = interleaved.reshape(-1, channels).T if frame.format.is_planar else interleaved
    shaped = np.ascontiguousarray(shaped.reshape(channels if frame.format.is_planar else 1, -1))
    made = av.AudioFrame.from_ndarray(shaped, frame.format.name, frame.layout)
    made.sample_rate = frame.sample_rate
    return made


def _few(frame: Any) -> NDArray[Any]:
    """Every STEPth of a frame's samples, shape (count, channels), as a rule without a copy of them
    all."""
    kind, channels = _DTYPES[frame.format.packed.name], frame.layout.nb_channels
    if frame.format.is_planar and channels >= _PLANES:
        return _interleaved(frame)[::STEP]
    if frame.format.is_planar:
        planes = [np.frombuffer(plane, kind, frame.samples)[::STEP] for plane in frame.planes]
        return np.stack(planes, axis=1)
    return np.frombuffer(frame.planes[0], kind, channels * frame.samples).reshape(-1, channels)[
        ::STEP
    ]


def _interleaved(frame: Any) -> NDArray[Any]:
    """All samples, shape (count, channels). Raises ValueError, FFmpegError."""
    channels = frame.layout.nb_channels
    if frame.format.packed.name not in _DTYPES:
        to_double = av.AudioResampler("dbl", frame.layout, frame.sample_rate)
        [frame] = to_double.resample(frame)
    if not frame.format.is_planar:
        packed: NDArray[Any] = frame.to_ndarray().reshape(-1, channels)
        return packed
    if channels < _PLANES:
        planar: NDArray[Any] = frame.to_ndarray().T
        return planar
    to_packed = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate)
    [packed_frame] = to_packed.resample(frame)
    return _interleaved(packed_frame)


def said(error: Exception) -> str:
    """FFmpeg's words without the number and the name that PyAV puts around them."""
    return getattr(error, "strerror", None) or str(error)
