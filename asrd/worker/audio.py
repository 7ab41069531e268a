"""A descriptor's bytes as 16 kHz mono float32, block by block.

The client keeps the descriptor: its offset is shared (so nothing here seeks it), it may be
truncated at any time (so nothing here maps it), and its bytes are hostile. PyAV sees a read-only
object over `pread`, never a name, and none of the demuxers that open what a file tells them to.
"""

from abc import abstractmethod
from collections.abc import Generator, Iterator
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from asrd.closing import Closing
from asrd.errors import BadAudio, FieldError, TooLarge
from asrd.records import (
    AudioFormat,
    JobWarning,
)
from asrd.worker.preadfile import PreadFile

Samples = NDArray[np.float32]

RATE = 16_000
# What is given out at a time, whatever the source: how far ahead a recording is known may decide a
# little about its text (asrd.worker.ahead), and that must not hang on the size of its packets.
BLOCK_SECONDS = 10
# Read and converted at a time: few enough bytes to be nothing, enough seconds to be few calls.
_READ_BYTES = 1 << 20
_CONVERT_SECONDS = 10
# Far above any honest sample (1.0 is full scale); float32 overflows in the spectrum above it.
_LOUDEST = 65_536.0
# Outside of these a resampled second would be absurdly large, or no recorder ever wrote it.
_RATES = range(1_000, 1_000_001)

# Containers that hold audio and name no other file. Not among them, on purpose: hls, concat, dash,
# sdp, rtsp, image2, lavfi ... (sdp opens a network port before it has read a sample).
_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,iff,loas,matroska,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,mxf,nut,ogg,qcp,rm,tak,tta,voc,w64,wav,wv"
)
_OPTIONS = {
    "format_whitelist": _CONTAINERS,
    # A second lock behind the list above: FFmpeg may open nothing by itself.
    "protocol_whitelist": "none",
    # A WAV of 16-bit samples may hold DTS instead; looking for it in all of the 2,500 packets
    # that FFmpeg would read makes a short file ten times as slow to open.
    "max_probe_packets": "1",
    # A WAV's packets of half a second instead of 64 ms take a quarter of the time.
    "max_size": "16384",
}
# These write the length down; the others' is a guess from their bit rate.
_KNOW_THEIR_LENGTH = frozenset({"flac", "matroska", "mov", "ogg", "wav", "webm"})
_PLAIN_CODECS = frozenset({"pcm_s16le", "pcm_f32le"})
_INT16 = np.float32(1 / 32_768)
_NOTHING = np.zeros(0, np.float32)


class Recording(Closing):
    """Iterate once for the samples; close it in any case.

    Attributes: `seconds` read so far; `total_seconds`, None while nobody knows (a container's own
    word for it may be a little wrong); `packets` decoded so far, which is what reading costs;
    `warnings` so far.
    """

    def __init__(self, total_seconds: float | None, max_seconds: float) -> None:
        self.total_seconds = total_seconds
        self.packets = 0
        self.warnings: list[JobWarning] = []
        self._max_seconds = max_seconds
        self._samples = 0
        self._pieces = self._read()

    def __iter__(self) -> Iterator[Samples]:
        """Blocks of BLOCK_SECONDS, the last one shorter. Raises BadAudio, TooLarge."""
        wanted = BLOCK_SECONDS * RATE
        held: list[Samples] = []
        count = 0
        for samples in self._pieces:
            self._samples += len(samples)
            self._refuse_longer(self.seconds)
            held.append(samples)
            count += len(samples)
            if count >= wanted:
                joined = np.concatenate(held) if len(held) > 1 else samples
                while count >= wanted:
                    yield joined[:wanted]
                    joined, count = joined[wanted:], count - wanted
                held = [joined]
        if not self._samples:
            raise BadAudio("audio: there is none in it")
        self.total_seconds = self.seconds
        if count:
            yield np.concatenate(held)

    @property
    def seconds(self) -> float:
        return self._samples / RATE

    @property
    @abstractmethod
    def plain(self) -> bool:
        """Nothing is to be decoded, resampled or mixed, so that it may be read `again`."""

    @abstractmethod
    def again(self) -> "Recording":
        """A `plain` recording of which a block was read, from its start."""

    @abstractmethod
    def _read(self) -> Generator[Samples, None, None]: ...

    def close(self) -> None:
        # It holds this recording, and FFmpeg's resampler with its threads: left to the garbage
        # collector, they would outlive the job by as long as it pleases.
        self._pieces.close()

    def _refuse_longer(self, seconds: float) -> None:
        if seconds > self._max_seconds:
            raise TooLarge(
                f"audio: lasts more than the {self._max_seconds:g} seconds that are allowed"
            )


def open_recording(fd: int, audio: AudioFormat, max_seconds: float) -> Recording:
    """Start to read `fd`, which stays the caller's and must stay open until `close`.

    Raises BadAudio for what is no readable regular file, or holds no audio as `audio` says;
    TooLarge if it is known to last longer than `max_seconds`.
    """
    file = PreadFile(fd)
    if audio.encoding == "file":
        return _Media(file, max_seconds)
    return _Pcm(file, audio, max_seconds)


class _Pcm(Recording):
    def __init__(self, file: PreadFile, audio: AudioFormat, max_seconds: float) -> None:
        try:
            seconds = audio.seconds(file.size - file.tell())
        except FieldError as error:
            raise BadAudio(str(error)) from None
        super().__init__(seconds, max_seconds)
        self._file = file
        self._start = file.tell()
        self._audio = audio
        self._refuse_longer(seconds or 0.0)

    @property
    def plain(self) -> bool:
        return (self._audio.sample_rate, self._audio.channels) == (RATE, 1)

    def again(self) -> Recording:
        return _Pcm(self._file.part(self._start, self._file.size), self._audio, self._max_seconds)

    def _read(self) -> Generator[Samples, None, None]:
        if self._audio.sample_rate == RATE:
            yield from self._mono()
            return
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        for block in self._mono():
            frame = av.AudioFrame.from_ndarray(block[np.newaxis], format="flt", layout="mono")
            frame.sample_rate = self._audio.sample_rate
            yield from _samples(resampler.resample(frame))
        yield from _samples(resampler.resample(None))

    def _mono(self) -> Iterator[Samples]:
        """At the client's own rate."""
        audio = self._audio
        frames = min(_READ_BYTES // audio.frame_bytes, BLOCK_SECONDS * audio.sample_rate)
        step = frames * audio.frame_bytes
        while data := self._take(step):
            if self._audio.encoding == "pcm_s16le":
                samples = np.frombuffer(data, "<i2") * _INT16
            else:
                samples = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
                _refuse_nonsense(samples)
            if self._audio.channels > 1:
                samples = samples.reshape(-1, self._audio.channels).mean(axis=1, dtype=np.float32)
            yield samples

    def _take(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end: `pread` may give fewer at any time."""
        data = self._file.read(count)
        while 0 < len(data) < count and (more := self._file.read(count - len(data))):
            data += more
        return data


class _Media(Recording):
    """Whatever PyAV decodes; the first audio stream of it."""

    def __init__(self, file: PreadFile, max_seconds: float) -> None:
        self._file = file
        # Where the first packet begins, once it was read.
        self._start = 0
        self._failure = "it holds no frame of audio"
        try:
            self._container = av.open(
                file,
                mode="r",
                metadata_errors="ignore",
                container_options=_OPTIONS,
            )
        except av.ArgumentError:
            raise BadAudio("audio: this kind of file is not accepted") from None
        except av.FFmpegError as error:
            raise BadAudio(f"audio: is not a media file that can be read: {_said(error)}") from None
        try:
            super().__init__(self._claimed(), max_seconds)
            self._stream = self._pick_stream()
            if (self.total_seconds or 0.0) > max_seconds:
                self._doubt_claim()
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        super().close()
        self._container.close()

    @property
    def plain(self) -> bool:
        codec = self._stream.codec_context
        return (
            self._container.format.name == "wav"
            and codec.name in _PLAIN_CODECS
            and (codec.sample_rate, codec.channels) == (RATE, 1)
        )

    def again(self) -> Recording:
        """The bytes behind the header: what FFmpeg gives, at a tenth of the price."""
        audio = AudioFormat(self._stream.codec_context.name)
        frames = self._stream.duration or self._file.size
        length = min(frames * audio.frame_bytes, self._file.size - self._start)
        end = self._start + length - length % audio.frame_bytes
        return _Pcm(self._file.part(self._start, end), audio, self._max_seconds)

    def _claimed(self) -> float | None:
        duration = self._container.duration
        return duration / av.time_base if duration and duration > 0 else None

    def _doubt_claim(self) -> None:
        """It is longer than anything may be. Raises TooLarge unless it is only a guess."""
        if self._container.format.name.split(",")[0] in _KNOW_THEIR_LENGTH:
            self._refuse_longer(self.total_seconds or 0.0)
        self.total_seconds = None

    def _pick_stream(self) -> Any:
        streams = self._container.streams.audio
        if not streams:
            raise BadAudio("audio: the file has no audio stream")
        if streams[0].codec_context is None:
            raise BadAudio("audio: no decoder for this codec")
        return streams[0]

    def _read(self) -> Generator[Samples, None, None]:
        converter: _Converter | None = None
        for frame in self._frames():
            if converter is None or not converter.takes(frame):
                if converter is not None:
                    yield from converter.finish()
                converter = _Converter(frame)
            yield from converter.convert(frame)
        if converter is None:
            raise BadAudio(f"audio: can't be decoded: {self._failure}")
        yield from converter.finish()

    def _frames(self) -> Iterator[Any]:
        """Every frame that can be decoded; what is damaged in between is skipped."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._failure = _said(error)
                continue
            yield from frames

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        damaged = False
        while True:
            try:
                packet = next(packets)
                damaged = False
            except StopIteration:
                return
            except av.FFmpegError as error:
                self._failure = _said(error)
                if damaged:
                    return
                # One damaged place in the container: go on behind it. Two at once: no way on.
                damaged = True
                packets = self._container.demux(self._stream)
                continue
            if not self.packets:
                self._start = packet.pos or 0
            self.packets += 1
            yield packet


class _Converter:
    """Frames of one format to 16 kHz mono; 16 bit, as faster-whisper decodes files."""

    def __init__(self, frame: Any) -> None:
        if frame.sample_rate not in _RATES:
            raise BadAudio(f"audio: a sample rate of {frame.sample_rate} Hz")
        self._format = _format(frame)
        self._fifo = av.AudioFifo()
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        self._finished = self._format == ("s16", "mono", RATE)
        # One resampler call for many frames: most codecs' frames are only 20 ms long.
        self._enough = _CONVERT_SECONDS * frame.sample_rate

    def takes(self, frame: Any) -> bool:
        return _format(frame) == self._format

    def convert(self, frame: Any) -> Iterator[Samples]:
        # Packed floats are as somebody wrote them; planar ones come from a codec, which is bounded.
        if frame.format.name in ("flt", "dbl"):
            _refuse_nonsense(frame.to_ndarray())
        if self._finished:
            yield from _scaled([frame])
            return
        frame.pts = None
        self._fifo.write(frame)
        if self._fifo.samples >= self._enough:
            yield from self._drain()

    def finish(self) -> Iterator[Samples]:
        yield from self._drain()
        yield from self._resample(None)

    def _drain(self) -> Iterator[Samples]:
        if self._fifo.samples:
            yield from self._resample(self._fifo.read())

    def _resample(self, frame: Any) -> Iterator[Samples]:
        try:
            frames = self._resampler.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            format_, layout, rate = self._format
            raise BadAudio(
                f"audio: {layout} of {format_} at {rate} Hz can't be made mono: {_said(error)}"
            ) from None
        yield from _scaled(frames)


def _format(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _samples(frames: list[Any]) -> Iterator[NDArray[Any]]:
    for frame in frames:
        if frame.samples:
            yield frame.to_ndarray()[0]


def _scaled(frames: list[Any]) -> Iterator[Samples]:
    for samples in _samples(frames):
        yield samples * _INT16


def _refuse_nonsense(samples: NDArray[Any]) -> None:
    # One comparison finds NaN, too: it is never <=.
    if not (max(samples.max(), -samples.min()) <= _LOUDEST):
        raise BadAudio(f"audio: a sample is not a number, infinite, or beyond ±{_LOUDEST:g}")


def _said(error: Exception) -> str:
    """FFmpeg's words without the number and the name that PyAV puts around them."""
    return getattr(error, "strerror", None) or str(error)
