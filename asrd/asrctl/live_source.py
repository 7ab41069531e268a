"""The audio of `asrctl transcribe --live`: a pipe or a file of samples, or a microphone."""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from asrd.asrctl.streams import complain, open_stdin
from asrd.errors import BadAudio
from asrd.wire.fds import OwnedFd

RATE = 16_000
_READ_BYTES = 1 << 13
_BLOCK_SECONDS = 0.1
_ADVICE = (
    "ffmpeg converts it: ffmpeg -i INPUT -f s16le -ar 16000 -ac 1 - | asrctl transcribe --live"
)
# The first bytes of MP3, Ogg, FLAC and Matroska; MP4 has its mark behind a length.
_CONTAINERS = b"ID3", b"OggS", b"fLaC", b"\x1aE\xdf\xa3"
_PCM, _EXTENSIBLE = 1, 0xFFFE
# No header has as much in front of the samples.
_CHUNK_MAX = 1 << 20
# A program that writes to a pipe does not know the length: it states 0, or about the most.
_LENGTH_KNOWN = range(1, 0x7FFF_0000)


@dataclass(frozen=True, slots=True)
class LiveSource:
    """Audio of 16-bit samples: `read` waits for the next bytes, of which there are none at the
    end."""

    read: Callable[[], bytes]
    rate: int
    channels: int


@contextmanager
def open_pipe(name: str | None, rate: int | None, channels: int | None) -> Iterator[LiveSource]:
    """Opens a file, or stdin (None): raw samples of this format, or WAV, whose header states its
    own. Raises BadAudio, OSError."""
    with _open(name) as fd:
        yield _described(fd.fileno(), rate or RATE, channels or 1)


@contextmanager
def _open(name: str | None) -> Iterator[OwnedFd]:
    if name is not None:
        fd = OwnedFd(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
    else:
        # Not through `sys.stdin`: a thread that waits in it would block the end of the program.
        fd = OwnedFd(os.dup(open_stdin().fileno()))
    try:
        if os.isatty(fd.fileno()):
            raise BadAudio("is a terminal: pipe audio into it, or use --microphone")
        yield fd
    finally:
        fd.close()


def _described(fd: int, rate: int, channels: int) -> LiveSource:
    head = _exactly(fd, 12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        rate, channels, length = _wav_header(fd)
        return LiveSource(_reader(fd, b"", length), rate, channels)
    if head.startswith(_CONTAINERS) or head[4:8] == b"ftyp":
        raise BadAudio(f"is no raw or WAV audio of 16 bits; {_ADVICE}")
    return LiveSource(_reader(fd, head, None), rate, channels)


def _reader(fd: int, head: bytes, length: int | None) -> Callable[[], bytes]:
    left = length

    def read() -> bytes:
        nonlocal head, left
        data, head = head or os.read(fd, _READ_BYTES), b""
        if left is not None:
            data = data[:left]
            left -= len(data)
        return data

    return read


def _wav_header(fd: int) -> tuple[int, int, int | None]:
    """Reads up to the samples. Returns rate, channels, and the length in bytes if it is known
    (Multimedia Programming Interface and Data Specifications 1.0)."""
    format_ = None
    while True:
        kind, size = struct.unpack("<4sI", _header_bytes(fd, 8))
        if kind == b"data":
            break
        if size > _CHUNK_MAX:
            raise BadAudio("the WAV header is damaged")
        body = _header_bytes(fd, size + size % 2)
        if kind == b"fmt " and len(body) >= 16:
            format_ = struct.unpack_from("<HHIIHH", body)
    if format_ is None:
        raise BadAudio("the WAV header states no format")
    tag, channels, rate, _, _, bits = format_
    if tag not in (_PCM, _EXTENSIBLE) or bits != 16:
        raise BadAudio(f"is no WAV audio of 16 bits; {_ADVICE}")
    return rate, channels, size if size in _LENGTH_KNOWN else None


def _header_bytes(fd: int, count: int) -> bytes:
    data = _exactly(fd, count)
    if len(data) < count:
        raise BadAudio("the WAV header is incomplete")
    return data


def _exactly(fd: int, count: int) -> bytes:
    """Reads `count` bytes, fewer at the end."""
    data = b""
    while len(data) < count and (part := os.read(fd, count - len(data))):
        data += part
    return data


@contextmanager
def open_microphone(device: str, rate: int | None, channels: int | None) -> Iterator[LiveSource]:
    """Opens a microphone by its number or a part of its name; the default one if that is empty.
    Raises BadAudio."""
    sounddevice = _sounddevice()
    rate, channels = rate or RATE, channels or 1
    name = int(device) if device.isdecimal() else device or None
    try:
        with sounddevice.RawInputStream(
            samplerate=rate, channels=channels, dtype="int16", device=name
        ) as stream:
            reading = threading.Lock()
            read = _microphone_reader(stream, round(rate * _BLOCK_SECONDS), reading)
            try:
                yield LiveSource(read, rate, channels)
            finally:
                # Never released: no thread may read from a device that is closed.
                reading.acquire()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise BadAudio(f"{error}; `python3 -m sounddevice` lists the devices") from None


def _microphone_reader(stream: Any, frames: int, reading: threading.Lock) -> Callable[[], bytes]:
    def read() -> bytes:
        with reading:
            data, overflowed = stream.read(frames)
        if overflowed:
            complain("microphone: some audio was lost, since this machine is too busy")
        return bytes(data)

    return read


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError:
        text = "--microphone requires the package sounddevice: pip install 'asrd[microphone]'"
        raise BadAudio(text) from None
    except OSError:
        # Its wheel for Linux does not hold the library.
        text = "--microphone requires the library PortAudio: apt install libportaudio2"
        raise BadAudio(text) from None
    module: ModuleType = sounddevice
    return module
