"""Recordings for tests: the bundled ones, the same in any container, and how they are read."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
from faster_whisper.audio import decode_audio
from numpy.typing import NDArray

from asrd.demo import SAMPLES
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import RATE, AudioReader, Samples
from asrd.wire.records import AudioFormat

FILE = AudioFormat("file")
# Containers, each with a codec and a rate.
KINDS: dict[str, tuple[str, int]] = {
    "3gp": ("aac", 44_100),
    "ac3": ("ac3", 48_000),
    "adts": ("aac", 44_100),
    "aiff": ("pcm_s16be", 44_100),
    "amr": ("amr_nb", 8_000),
    "au": ("pcm_s16be", 8_000),
    "avi": ("libmp3lame", 44_100),
    "caf": ("pcm_s16le", 16_000),
    "flac": ("flac", 16_000),
    "flv": ("aac", 44_100),
    "matroska": ("aac", 16_000),
    "mov": ("alac", 44_100),
    "mp3": ("libmp3lame", 44_100),
    "mp4": ("aac", 44_100),
    "mpeg": ("ac3", 48_000),
    "mpegts": ("mp2", 48_000),
    "nut": ("aac", 16_000),
    "ogg": ("libopus", 48_000),
    "rm": ("ac3", 48_000),
    "sox": ("pcm_s32le", 16_000),
    "tta": ("tta", 44_100),
    "voc": ("pcm_s16le", 16_000),
    "w64": ("pcm_s16le", 16_000),
    "wav": ("pcm_s16le", 16_000),
    "webm": ("libopus", 48_000),
    "wv": ("wavpack", 44_100),
}
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


@contextmanager
def recording(
    data: bytes, audio: AudioFormat = FILE, limit: float = 3600.0, **options: Any
) -> Iterator[AudioReader]:
    with memory_file(data) as fd, open_recording(fd, audio, limit, **options) as opened:
        yield opened


def read(
    data: bytes, audio: AudioFormat = FILE, limit: float = 3600.0, **options: Any
) -> tuple[Samples, AudioReader]:
    """Returns all samples, and the recording, which is closed."""
    with recording(data, audio, limit, **options) as opened:
        return np.concatenate(list(opened)), opened


def codes(opened: AudioReader) -> set[str]:
    return {warning.code for warning in opened.warnings}


def sample(name: str) -> Samples:
    samples: Samples = decode_audio(str(SAMPLES / name))
    return samples


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level: float = 1e-3) -> Samples:
    generator = np.random.default_rng(round(seconds * 1000))
    return generator.normal(0, level, round(seconds * RATE)).astype(np.float32)


def blocks(samples: Samples, length: int) -> Iterator[Samples]:
    """The samples as the audio reader yields them, in blocks of this length."""
    for start in range(0, len(samples), length):
        yield samples[start : start + length]


def s16(samples: Samples) -> NDArray[np.int16]:
    return (samples * 32767).astype("<i2")


def wav(data: bytes, *, rate: int = RATE, channels: int = 1, data_size: int | None = None) -> bytes:
    """16-bit PCM behind a header that may lie about the size."""
    size = len(data) if data_size is None else data_size
    frame = 2 * channels
    speed = rate * frame
    return (
        b"RIFF"
        + struct.pack("<I", min(size + 36, 0xFFFFFFFF))
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, channels, rate, speed & 0xFFFFFFFF, frame & 0xFFFF, 16)
        + struct.pack("<4sI", b"data", size)
        + data
    )


def encoded(
    samples: Samples,
    container: str,
    codec: str = "",
    rate: int = 0,
    *,
    layout: str = "mono",
    video: str = "",
    size: tuple[int, int] = (16, 16),
) -> bytes:
    """A media file of `samples`, shape (count,) or (count, channels), as KINDS says if nothing else
    is given; with a codec for `video`, it has a black picture of that size, too."""
    usual_codec, usual_rate = KINDS.get(container, ("", RATE))
    codec, rate = codec or usual_codec, rate or (RATE if codec else usual_rate)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        picture: Any = output.add_stream(video, rate=25) if video else None
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        if video:
            picture.width, picture.height = size
            for number in range(25 * len(samples) // RATE if container == "dv" else 1):
                image = av.VideoFrame(*size, "yuv420p")
                image.pts = number
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        for packet in packets(stream, samples):
            output.mux(packet)
    return file.getvalue()


def packets(stream: Any, samples: Samples) -> Iterator[Any]:
    """The packets of a new audio stream."""
    layout = stream.layout.name
    resampler = av.AudioResampler(stream.codec_context.format.name, layout, stream.rate)
    written = 0
    for start in (*range(0, len(samples), _FRAME), None):
        frame = None
        if start is not None:
            row = np.ascontiguousarray(s16(samples[start : start + _FRAME])).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(row, "s16", layout)
            frame.sample_rate = RATE
        for part in resampler.resample(frame):
            part.pts, part.time_base = written, Fraction(1, stream.rate)
            written += part.samples
            yield from stream.encode(part)
    yield from stream.encode(None)
