"""Long recordings in several formats, made quickly: ten minutes of speech, encoded once and then
repeated packet by packet."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.measure import RATE, pcm, speech

# Name, codec, sample rate; by the file's ending.
FORMATS = {
    "pcm": ("pcm_s16le", RATE),
    "flac": ("flac", RATE),
    "mp3": ("libmp3lame", RATE),
    "opus": ("libopus", 48_000),
}
_MINUTES = 10


class LongFiles:
    """`get` makes a file at its first use, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._audio = speech(60 * _MINUTES)

    def get(self, kind: str, minutes: int) -> Path:
        path = self._directory / f"{minutes}.{kind}"
        if not path.exists():
            write = self._write_pcm if kind == "pcm" else self._write_encoded
            write(path, min(minutes, _MINUTES), max(1, minutes // _MINUTES))
        return path

    def _write_pcm(self, path: Path, minutes: int, times: int) -> None:
        data = pcm(self._audio[: minutes * 60 * RATE])
        with path.open("wb") as file:
            for _ in range(times):
                file.write(data)

    def _write_encoded(self, path: Path, minutes: int, times: int) -> None:
        codec, rate = FORMATS[path.suffix[1:]]
        audio = (self._audio[: minutes * 60 * RATE] * 32767).astype("<i2")
        # A FLAC frame carries its own number: its packets can't be repeated.
        whole = codec == "flac"
        with av.open(str(path), "w", format="ogg" if codec == "libopus" else None) as container:
            stream: Any = container.add_stream(codec, rate=rate)
            stream.layout = "mono"
            packets = _encode(stream, np.tile(audio, times) if whole else audio)
            step = Fraction(minutes * 60)
            for turn in range(1 if whole else times):
                for packet, pts in packets:
                    packet.stream = stream
                    packet.pts = packet.dts = pts + int(turn * step / packet.time_base)
                    container.mux(packet)


def _encode(stream: Any, audio: NDArray[np.int16]) -> list[tuple[Any, int]]:
    """Packets with their times, which a container may change as it takes them."""
    context = stream.codec_context
    resampler = av.AudioResampler(format=context.format, layout="mono", rate=context.sample_rate)
    packets = []
    for start in range(0, len(audio), RATE):
        frame = av.AudioFrame.from_ndarray(audio[None, start : start + RATE], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, start
        frame.time_base = Fraction(1, RATE)
        for ready in resampler.resample(frame):
            packets += stream.encode(ready)
    for ready in resampler.resample(None):
        packets += stream.encode(ready)
    packets += stream.encode(None)
    return [(packet, packet.pts) for packet in packets]
