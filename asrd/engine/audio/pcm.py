"""PCM without a container, in the format that the client describes."""

from collections.abc import Generator, Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from asrd.engine.audio.preadfile import PreadFile
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, AudioReader, Samples
from asrd.engine.audio.samples import STEP, mixed
from asrd.errors import BadAudio, FieldError
from asrd.wire.records import AudioFormat

# So few bytes are no burden for memory, and hold enough seconds for few calls.
_READ_BYTES = 1 << 20
_INT16 = np.float32(1 / 32_768)


class Pcm(AudioReader):
    """`channel`: the only one to read; None for the mean of all."""

    def __init__(
        self, file: PreadFile, audio: AudioFormat, max_seconds: float, channel: int | None = None
    ) -> None:
        try:
            seconds = audio.seconds(file.size)
        except FieldError as error:
            raise BadAudio(str(error)) from None
        super().__init__(seconds, max_seconds, audio.channels)
        self._file = file
        self._audio = audio
        self._channel = channel
        self._refuse_longer(seconds or 0.0)

    @property
    def plain(self) -> bool:
        return (self._audio.sample_rate, self._audio.channels) == (RATE, 1)

    def again(self) -> AudioReader:
        return Pcm(self._file.part(0, self._file.size), self._audio, self._max_seconds)

    def _read(self) -> Generator[Samples, None, None]:
        yield from self._mono() if self._audio.sample_rate == RATE else self._resampled()
        self.warnings += self._checks.warnings()

    def _resampled(self) -> Iterator[Samples]:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        for block in self._mono():
            frame = av.AudioFrame.from_ndarray(block[np.newaxis], format="flt", layout="mono")
            frame.sample_rate = self._audio.sample_rate
            yield from arrays(resampler.resample(frame))
        yield from arrays(resampler.resample(None))

    def _mono(self) -> Iterator[Samples]:
        """At the client's rate."""
        audio = self._audio
        frames = min(_READ_BYTES // audio.frame_bytes, BLOCK_SECONDS * audio.sample_rate)
        while data := self._file.read(frames * audio.frame_bytes):
            if audio.encoding == "pcm_s16le":
                samples = np.frombuffer(data, "<i2") * _INT16
            else:
                samples = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
                samples = self._checks.replaced(samples, audio.channels, audio.sample_rate)
            if audio.channels > 1:
                samples = self._mixed(samples.reshape(-1, audio.channels))
            yield samples

    def _mixed(self, frames: Samples) -> Samples:
        channel = self._channel
        if channel is None:
            channel = self._checks.to_keep(frames[::STEP], lambda: frames)
        return mixed(frames, channel)


def arrays(frames: list[Any]) -> Iterator[NDArray[Any]]:
    """Yields the samples of mono frames."""
    for frame in frames:
        if frame.samples:
            yield frame.to_ndarray()[0]
