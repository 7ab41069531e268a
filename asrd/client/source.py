"""What a caller calls audio, as one descriptor that can be sent and sent again.

A regular file goes as it is; all else is written to a memfd, sealed so that the daemon may rely
on its length. No numpy here: an array tells what it is by `__array_interface__`.
"""

import fcntl
import io
import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, runtime_checkable

from asrd.client.attempts import AudioHint
from asrd.errors import BadRequest, FieldError, TooLarge
from asrd.fields import parse
from asrd.ownedfd import OwnedFd
from asrd.records import (
    AudioFormat,
)

# A pipe may never end; the daemon takes no more than this by default either (max_file_bytes).
MAX_COPY = 4 << 30
_STEP = 1 << 20
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_ARRAY_ENCODINGS = {"<f4": "pcm_f32le", "<i2": "pcm_s16le"}


@runtime_checkable
class Array(Protocol):
    """What numpy's arrays are, as far as asrd needs to know."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...

    def tobytes(self) -> bytes: ...


Audio = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview | Array


class Source:
    """The audio of one job, open until `close`."""

    def __init__(self, fd: OwnedFd, format: AudioFormat) -> None:
        self.fd = fd
        self.format = format

    def close(self) -> None:
        self.fd.close()


def open_source(audio: Audio, hint: AudioHint) -> Source:
    """`audio`: a path, a binary file object, bytes, or an array (float32 or int16, shape (n,) or
    (n, channels)).

    Raises OSError for a file that can't be read, TypeError for what is none of these, BadRequest
    for a format out of range, TooLarge for a pipe without end.
    """
    if isinstance(audio, Array):
        return _from_array(audio, hint)
    format = _format(hint.encoding or "file", hint.sample_rate, hint.channels)
    if isinstance(audio, (bytes, bytearray, memoryview)):
        return Source(_memfd(memoryview(audio).cast("B")), format)
    if isinstance(audio, (str, os.PathLike)):
        return Source(_open_path(audio), format)
    if hasattr(audio, "read") and not isinstance(audio, io.TextIOBase):
        return Source(_open_file(audio), format)
    raise TypeError(
        "audio must be a path, a binary file, bytes or an array of float32 or int16, "
        f"not {type(audio).__name__}"
    )


def _format(encoding: str, sample_rate: int, channels: int) -> AudioFormat:
    fields = {"encoding": encoding, "sample_rate": sample_rate, "channels": channels}
    try:
        return parse(AudioFormat, fields, "audio.")
    except FieldError as error:
        raise BadRequest(str(error)) from None


def _from_array(array: Array, hint: AudioHint) -> Source:
    interface = array.__array_interface__
    encoding = _ARRAY_ENCODINGS.get(interface["typestr"])
    shape = interface["shape"]
    if encoding is None or len(shape) not in (1, 2):
        raise TypeError(
            "an audio array must be float32 or int16 of shape (n,) or (n, channels), "
            f"not {interface['typestr']} of shape {shape}"
        )
    if hint.encoding not in (None, encoding):
        raise BadRequest(f"audio.encoding: the array is {encoding}, not {hint.encoding}")
    channels = shape[1] if len(shape) == 2 else hint.channels
    format = _format(encoding, hint.sample_rate, channels)
    view = memoryview(array)  # type: ignore[arg-type]
    # A view with gaps, or without a single sample, can't be written as it is.
    flat = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(array.tobytes())
    return Source(_memfd(flat), format)


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
    fd = _new_memfd()
    try:
        size = 0
        while data := read(_STEP):
            size += len(data)
            if size > MAX_COPY:
                raise TooLarge(f"the audio is longer than {MAX_COPY >> 30} GiB")
            _write(fd, memoryview(data))
        return _sealed(fd)
    except BaseException:
        fd.close()
        raise


def _memfd(data: memoryview) -> OwnedFd:
    fd = _new_memfd()
    try:
        _write(fd, data)
        return _sealed(fd)
    except BaseException:
        fd.close()
        raise


def _new_memfd() -> OwnedFd:
    return OwnedFd(os.memfd_create("asrd-audio", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def _write(fd: OwnedFd, data: memoryview) -> None:
    while data:
        data = data[os.write(fd.fileno(), data) :]


def _sealed(fd: OwnedFd) -> OwnedFd:
    fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    return fd
