"""Recordings for tests: the bundled ones, and the same in any container."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from faster_whisper.audio import decode_audio
from numpy.typing import NDArray

from asrd.demo import SAMPLES
from asrd.engine.audio.reader import RATE

Samples = NDArray[np.float32]

# A minute: what FFmpeg may allocate is limited (asrd.engine.audio.containers).
_FRAME = 60 * RATE


@contextmanager
def memory_file(data: bytes) -> Iterator[int]:
    """A descriptor as a client sends it: `data` in a memfd, the offset at its end."""
    fd = os.memfd_create("audio")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def sample(name: str) -> Samples:
    samples: Samples = decode_audio(str(SAMPLES / name))
    return samples


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level: float = 1e-3) -> Samples:
    generator = np.random.default_rng(round(seconds * 1000))
    return generator.normal(0, level, round(seconds * RATE)).astype(np.float32)


def s16(samples: Samples) -> NDArray[np.int16]:
    return (samples * 32767).astype("<i2")


def wav(data: bytes, *, rate: int = RATE, channels: int = 1, data_size: int | None = None) -> bytes:
    """16-bit PCM behind a header that may lie about the size."""
    size = len(data) if data_size is None else data_size
    return (
        b"RIFF"
        + struct.pack("<I", min(size + 36, 0xFFFFFFFF))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
        + struct.pack("<4sI", b"data", size)
        + data
    )


def encoded(
    samples: Samples, container: str, codec: str, rate: int = RATE, *, video: bool = False
) -> bytes:
    """Mono `samples` as a media file; with `video`, behind a video stream."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        picture: Any = output.add_stream("mpeg4", rate=10) if video else None
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        if picture is not None:
            picture.width = picture.height = 16
            for packet in picture.encode(av.VideoFrame(16, 16, "yuv420p")):
                output.mux(packet)
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate)
        for start in range(0, len(samples), _FRAME):
            piece = s16(samples[start : start + _FRAME])[np.newaxis]
            frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
            frame.sample_rate = RATE
            _write(output, stream, resampler.resample(frame))
        _write(output, stream, resampler.resample(None))
        for each in filter(None, (picture, stream)):
            output.mux(each.encode(None))
    return file.getvalue()


def _write(output: Any, stream: Any, frames: list[Any]) -> None:
    for frame in frames:
        frame.pts = None
        output.mux(stream.encode(frame))
