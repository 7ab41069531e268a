"""The caller's audio as one descriptor, which can be sent more than once.

A regular file is sent unchanged. All other audio is written to a sealed memfd, so that the daemon
can rely on its length. numpy is not imported: an array describes itself by `__array_interface__`
(numpy's manual, "The array interface protocol") and converts itself by its own methods.
"""

import io
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, runtime_checkable

from asrd.client.attempts import AudioHint
from asrd.errors import BadAudio, BadRequest, FieldError, TooLarge
from asrd.wire.fds import OwnedFd, new_memfd, seal
from asrd.wire.fields import parse
from asrd.wire.records import AudioFormat

# A pipe may never end. The daemon's own limit (max_file_bytes) is the same by default.
MAX_COPY = 4 << 30
_STEP = 1 << 20
# Floats between -1 and 1 may overshoot by less; integers in floats exceed it.
_LOUDEST = 64.0
# The number of samples of an array that are converted at a time.
_BLOCK = 1 << 18


@runtime_checkable
class Array(Protocol):
    """An array of numpy, or of a library with the same interface."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


Audio = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview | Array


@dataclass(frozen=True, slots=True)
class Source:
    """The audio of one job. The owner closes `fd`."""

    fd: OwnedFd
    format: AudioFormat


def open_source(audio: Audio, hint: AudioHint) -> Source:
    """Opens or copies `audio`, which Client.transcribe describes.

    Raises OSError for a file that can't be read, TypeError for other objects, BadRequest for a
    format out of range, BadAudio for an empty array, TooLarge for a pipe without end.
    """
    if isinstance(audio, Array):
        return _from_array(audio, hint)
    format = _format(hint.encoding or "file", hint.sample_rate, hint.channels)
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return Source(_written([memoryview(audio).cast("B")]), format)
    if isinstance(audio, (str, os.PathLike)):
        return Source(_open_path(audio), format)
    if hasattr(audio, "read") and not isinstance(audio, io.TextIOBase):
        return Source(_open_file(audio), format)
    raise TypeError(
        "audio must be a path, a binary file, bytes or a numpy array, "
        f"not {type(audio).__name__}{_advice(audio)}"
    )


def _advice(audio: object) -> str:
    if callable(getattr(audio, "numpy", None)):
        return ": pass audio.numpy()"
    if hasattr(audio, "__array__") or isinstance(audio, (list, tuple)):
        return ": pass numpy.asarray(audio)"
    return ""


def _format(encoding: str, sample_rate: int, channels: int) -> AudioFormat:
    fields = {"encoding": encoding, "sample_rate": sample_rate, "channels": channels}
    try:
        return parse(AudioFormat, fields, "audio.")
    except FieldError as error:
        raise BadRequest(str(error)) from None


def _from_array(array: Any, hint: AudioHint) -> Source:
    if array.dtype.kind not in "fiu" or len(array.shape) not in (1, 2):
        raise TypeError(
            "an audio array must hold floats or integers, shape (n,) or (n, channels), "
            f"not {array.dtype} of shape {array.shape}"
        )
    encoding, convert = _conversion(array.dtype)
    if hint.encoding not in (None, encoding):
        raise BadRequest(f"audio.encoding: the array is sent as {encoding}, not {hint.encoding}")
    format = _array_format(encoding, array.shape, hint)
    if array.shape[0] == 0:
        raise BadAudio("audio: the array is empty")
    _refuse_unscaled(array)
    return Source(_written(_converted(array, convert, format.channels)), format)


def _array_format(encoding: str, shape: tuple[int, ...], hint: AudioHint) -> AudioFormat:
    channels = shape[1] if len(shape) == 2 else hint.channels
    try:
        return _format(encoding, hint.sample_rate, channels)
    except BadRequest as error:
        if len(shape) == 2 and shape[0] < shape[1]:
            advice = f"the shape {shape} is read as (n, channels): pass audio.T"
            raise BadRequest(f"{error}; {advice}") from None
        raise


def _conversion(dtype: Any) -> tuple[str, Callable[[Any], Any]]:
    """Returns the encoding for samples of this type, and a function that converts a part of them.

    Floats keep their values. The full scale of an integer type becomes -1 to 1; the middle of an
    unsigned type is silence, as in WAV files.
    """
    if dtype.kind == "f":
        return "pcm_f32le", lambda part: part.astype("<f4", copy=False)
    if dtype.kind == "i" and dtype.itemsize == 2:
        return "pcm_s16le", lambda part: part.astype("<i2", copy=False)
    scale = _full_scale(dtype)
    silence = scale if dtype.kind == "u" else 0
    return "pcm_f32le", lambda part: ((part.astype("f8") - silence) / scale).astype("<f4")


def _full_scale(dtype: Any) -> int:
    return 1 << (8 * int(dtype.itemsize) - 1)


def _refuse_unscaled(array: Any) -> None:
    """Refuses samples that were converted to another type without scaling: a model invents text for
    audio that is far too loud or nearly silent (-96 dB)."""
    peak = max(float(array.max()), -float(array.min()))
    if array.dtype.kind == "f" and _LOUDEST < peak < math.inf:
        raise BadRequest(
            f"audio: floats must lie between -1 and 1, but a sample of the array is {peak:g}: "
            "divide them by the full scale of the samples, 32768 for 16 bits"
        )
    scale = _full_scale(array.dtype)
    if array.dtype.kind == "i" and array.dtype.itemsize > 2 and 0 < peak <= scale >> 16:
        raise BadRequest(
            f"audio: the full scale of {array.dtype} is {scale}, but no sample is above {peak:g}: "
            "pass 16-bit samples as audio.astype('int16')"
        )


def _converted(array: Any, convert: Callable[[Any], Any], channels: int) -> Iterator[bytes]:
    """Yields the bytes of the whole array in C order, from any layout, a block at a time."""
    rows = _BLOCK // channels
    for start in range(0, array.shape[0], rows):
        yield convert(array[start : start + rows]).tobytes()


def _open_path(path: str | os.PathLike[str]) -> OwnedFd:
    fd = OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        kind = os.fstat(fd.fileno()).st_mode
        if stat.S_ISREG(kind):
            return OwnedFd(fd.take())
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(f"{os.fspath(path)!r} is a directory")
        return _written(_pieces(lambda size: os.read(fd.fileno(), size)))
    finally:
        fd.close()


def _open_file(file: BinaryIO) -> OwnedFd:
    """Returns the file's own descriptor if its position is 0, else a copy of the rest."""
    # Not `fileno` of any object: a gzip file has the descriptor of the packed bytes.
    raw = getattr(file, "raw", file)
    if isinstance(raw, io.FileIO) and raw.readable():
        regular = stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
        if regular and file.tell() == 0:
            return OwnedFd(os.dup(raw.fileno()))
    return _written(_pieces(file.read))


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    size = 0
    while data := read(_STEP):
        size += len(data)
        if size > MAX_COPY:
            raise TooLarge(f"the audio is longer than {MAX_COPY >> 30} GiB")
        yield data


def _written(pieces: Iterable[bytes | memoryview]) -> OwnedFd:
    fd = new_memfd()
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd.fileno(), rest) :]
        seal(fd)
    except BaseException:
        fd.close()
        raise
    return fd
