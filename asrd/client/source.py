"""What a caller calls audio, as one descriptor that can be sent and sent again.

A regular file goes as it is; all else is written to a memfd, sealed so that the daemon may rely
on its length. Without numpy: an array describes itself by `__array_interface__`, and converts
itself by its own methods.
"""

import io
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Protocol, runtime_checkable

from asrd.client.attempts import AudioHint
from asrd.errors import BadAudio, BadRequest, FieldError, TooLarge
from asrd.wire.fds import OwnedFd, new_memfd, seal
from asrd.wire.fields import parse
from asrd.wire.records import AudioFormat

# A pipe may never end; the daemon takes no more than this by default either (max_file_bytes).
MAX_COPY = 4 << 30
_STEP = 1 << 20
# Far above what honest floats may overshoot, and below what integers as floats are.
_LOUDEST = 64.0
# Samples of an array that are converted at a time.
_BLOCK = 1 << 18


@runtime_checkable
class Array(Protocol):
    """The part of numpy's arrays that asrd uses."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> Any: ...

    # As properties, since numpy's own overloads differ from version to version.
    @property
    def max(self) -> Callable[..., Any]: ...

    @property
    def min(self) -> Callable[..., Any]: ...


Audio = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview | Array


class Source:
    """The audio of one job, open until `close`."""

    def __init__(self, fd: OwnedFd, format: AudioFormat) -> None:
        self.fd = fd
        self.format = format

    def close(self) -> None:
        self.fd.close()


def open_source(audio: Audio, hint: AudioHint) -> Source:
    """`audio`: a path, a binary file object, bytes, or an array of numbers, shape (n,) or
    (n, channels).

    Raises OSError for a file that can't be read, TypeError for what is none of these, BadRequest
    for a format out of range, BadAudio for an empty array, TooLarge for a pipe without end.
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


def _from_array(array: Array, hint: AudioHint) -> Source:
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
    """The encoding for samples of this type, and a function that converts a part of the array.

    Floats keep their values. The full scale of an integer type becomes -1 to 1, and the middle of
    an unsigned one is silence, as in WAV files.
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


def _refuse_unscaled(array: Array) -> None:
    """Refuses samples that were converted to another type without being scaled for it, since from
    what is far too loud, or nearly silent (-96 dB), a model makes text of its own."""
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


def _converted(array: Array, convert: Callable[[Any], Any], channels: int) -> Iterator[bytes]:
    """The bytes of the whole array in C order, whatever its layout, a block at a time."""
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
        return _copy(lambda size: os.read(fd.fileno(), size))
    finally:
        fd.close()


def _open_file(file: BinaryIO) -> OwnedFd:
    """The file's own descriptor if it stands at its start, else a copy of what is left to read."""
    # Not any `fileno`: that of a gzip file is the descriptor of the packed bytes.
    raw = getattr(file, "raw", file)
    if isinstance(raw, io.FileIO) and raw.readable():
        regular = stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
        if regular and file.tell() == 0:
            return OwnedFd(os.dup(raw.fileno()))
    return _copy(file.read)


def _copy(read: Callable[[int], bytes]) -> OwnedFd:
    return _written(_pieces(read))


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
