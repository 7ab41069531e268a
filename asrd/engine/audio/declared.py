"""Facts from a container's own byte counts: whether bytes are missing, and where the files of a
chain begin.

Nothing here is decoded. Each walk reads the headers of a file's outermost pieces, and only a
bounded number of them. A size only ever says where to look next.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from asrd.engine.audio.preadfile import PreadFile
from asrd.errors import BadAudio

# Pieces that are looked at: an hour of Opus has 3,600 pages, a day of MP4 in fragments of a second
# 172,800 boxes. A quarter of a million take half a second.
_PIECES = 1 << 18
# Each costs a millisecond to open.
MAX_LINKS = 1000
# Some recorders count their header (44 bytes of WAV) as samples.
_OF_HEADER = 64
# What a writer that can't go back leaves as a size: 0, or the largest number, or a little less.
_UNKNOWN_32 = 0x7FFF0000
_UNKNOWN_64 = 1 << 62


@dataclass(frozen=True, slots=True)
class Declared:
    """`links`: the (start, end) of each file in a chain, at least one. `missing`: the file
    announces bytes that are not there. `share`: how much of its samples is there, where each second
    takes as many bytes as any other."""

    links: tuple[tuple[int, int], ...]
    missing: bool = False
    share: float | None = None


# (name, where its content begins, its size or None if it is unknown)
_Piece = tuple[bytes, int, int | None]


def declared(file: PreadFile) -> Declared:
    head = file.at(0, 16)
    for magic, walk in _WALKS:
        if head.startswith(magic):
            return walk(file)
    if head[4:8] in _BOXES:
        return _mp4(file)
    return _one(file)


def _one(file: PreadFile) -> Declared:
    return Declared(((0, file.size),))


# --- RIFF and its relatives -----------------------------------------------------------------------


def _chunks(
    file: PreadFile, start: int, read: Callable[[bytes, int], _Piece | None], header: int, pad: int
) -> Iterator[_Piece]:
    for _ in range(_PIECES):
        data = file.at(start, header)
        piece = read(data, start + header) if len(data) == header else None
        if piece is None:
            return
        yield piece
        if piece[2] is None:
            return
        start = piece[1] + piece[2]
        start += -start % pad


def _chunked(file: PreadFile, pieces: Iterator[_Piece], samples: bytes) -> Declared:
    """The chunk with the samples must end within the file."""
    for name, begin, size in pieces:
        if name == samples and size is not None and begin + size > file.size + _OF_HEADER:
            return Declared(((0, file.size),), True, max(0, file.size - begin) / size)
    return _one(file)


def _size(value: int, unknown: int) -> int | None:
    return None if value == 0 or value >= unknown else value


def _riff(file: PreadFile) -> Declared:
    kind = file.at(8, 4)
    if kind == b"AVI ":
        size = _size(int.from_bytes(file.at(4, 4), "little"), _UNKNOWN_32)
        return Declared(((0, file.size),), size is not None and 8 + size > file.size + 1)
    # RF64 has its true size in the first chunk.
    large = int.from_bytes(file.at(28, 8), "little") if file.at(12, 4) == b"ds64" else 0

    def read(data: bytes, begin: int) -> _Piece:
        size = int.from_bytes(data[4:], "little")
        if data[:4] != b"data":
            return data[:4], begin, size
        return data[:4], begin, large or _size(size, _UNKNOWN_32)

    return _chunked(file, _chunks(file, 12, read, 8, 2), b"data")


def _aiff(file: PreadFile) -> Declared:
    def read(data: bytes, begin: int) -> _Piece:
        return data[:4], begin, _size(int.from_bytes(data[4:], "big"), _UNKNOWN_32)

    name = b"BODY" if file.at(8, 4) == b"8SVX" else b"SSND"
    return _chunked(file, _chunks(file, 12, read, 8, 2), name)


def _caf(file: PreadFile) -> Declared:
    def read(data: bytes, begin: int) -> _Piece:
        return data[:4], begin, _size(int.from_bytes(data[4:], "big"), _UNKNOWN_64)

    return _chunked(file, _chunks(file, 8, read, 12, 1), b"data")


def _w64(file: PreadFile) -> Declared:
    def read(data: bytes, begin: int) -> _Piece | None:
        size = int.from_bytes(data[16:], "little")
        if size < 24:
            return None
        return data[:4], begin, None if size >= _UNKNOWN_64 else size - 24

    return _chunked(file, _chunks(file, 40, read, 24, 8), b"data")


def _au(file: PreadFile) -> Declared:
    begin = int.from_bytes(file.at(4, 4), "big")
    size = _size(int.from_bytes(file.at(8, 4), "big"), _UNKNOWN_32)
    return _chunked(file, iter([(b"data", begin, size)]), b"data")


def _sox(file: PreadFile) -> Declared:
    order: Literal["little", "big"] = "little" if file.at(0, 1) == b"." else "big"
    begin = 4 + int.from_bytes(file.at(4, 4), order)
    size = _size(4 * int.from_bytes(file.at(8, 8), order), _UNKNOWN_64)
    return _chunked(file, iter([(b"data", begin, size)]), b"data")


def _voc(file: PreadFile) -> Declared:
    start = int.from_bytes(file.at(20, 2), "little")

    def read(data: bytes, begin: int) -> _Piece | None:
        kind, size = data[:1], int.from_bytes(data[1:], "little")
        return None if kind == b"\0" else (b"data", begin, size)

    found = _chunked(file, _chunks(file, start, read, 4, 1), b"data")
    return Declared(found.links, found.missing)


# --- MP4 ------------------------------------------------------------------------------------------

_BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx"}
)
_MUST_BE_WHOLE = frozenset({b"moov", b"moof", b"mdat", b"mfra"})

# FFmpeg makes an entry of 24 bytes for each sample of each track, and a run of any number of them
# takes 8 bytes in a file. A day of AAC is four million.
_SAMPLES = 16_000_000
_TABLES = 1 << 26


def _mp4(file: PreadFile) -> Declared:
    starts = [0]
    previous, whole = 0, False
    samples, fragments = 0, False
    for name, begin, size in boxes(file):
        if name in (b"moov", b"moof"):
            samples += _count_samples(file.at(begin, min(size or 0, _TABLES)))
            if samples > _SAMPLES:
                raise BadAudio(f"audio: its tables claim {samples} packets, which is too many")
        if name in _MUST_BE_WHOLE and size is not None and begin + size > file.size:
            return Declared(_between(starts, file.size), missing=True)
        fragments = fragments or name == b"moof"
        # The header of fragments is often repeated; FFmpeg goes on with those behind it.
        if name == b"ftyp" and whole and not fragments:
            _add_link(starts, previous)
            whole = False
        whole = whole or name == b"moov"
        previous = begin + (size or 0)
    return Declared(_between(starts, file.size))


def boxes(file: PreadFile, start: int = 0) -> Iterator[_Piece]:
    """The outermost boxes."""
    for _ in range(_PIECES):
        data = file.at(start, 16)
        if len(data) < 8:
            return
        size, name, header = int.from_bytes(data[:4], "big"), data[4:8], 8
        if size == 1 and len(data) == 16:
            size, header = int.from_bytes(data[8:], "big"), 16
        if size < header:
            return  # 0: to the end of the file
        yield name, start + header, size - header
        start += size


_COUNTS = re.compile(rb"(stsz.{8}|stz2.{8}|trun.{4})(.{4})", re.DOTALL)
# FFmpeg allocates all of a run of a fragment at once, and more than this it can't: a damaged count.
_RUN = 6_000_000
_DURATIONS = re.compile(rb"stts.{4}(.{4}.{8})", re.DOTALL)
# One run of samples that last one tick each is PCM, and FFmpeg makes one packet of 1,024 of them.
_OF_PCM = re.compile(rb"\0\0\0\x01.{4}\0\0\0\x01", re.DOTALL)


def _count_samples(data: bytes) -> int:
    """The entries that FFmpeg makes for what a moov or moof holds, in whatever boxes it stands."""
    total = 0
    for track in data.split(b"trak"):
        count = 0
        for found in _COUNTS.finditer(track):
            entries = int.from_bytes(found[2], "big")
            if entries < _RUN or not found[1].startswith(b"trun"):
                count += entries
        durations = _DURATIONS.findall(track)
        pcm = durations and all(_OF_PCM.fullmatch(found) for found in durations)
        total += count // 1024 if pcm else count
    return total


# --- Matroska -------------------------------------------------------------------------------------

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def _matroska(file: PreadFile) -> Declared:
    links: list[tuple[int, int]] = []
    start = 0
    while len(links) < MAX_LINKS and file.at(start, 4) == _EBML:
        header = _ebml_size(file, start + 4)
        if header is None or header[1] is None:
            break
        segment = header[0] + header[1]
        size = _ebml_size(file, segment + 4) if file.at(segment, 4) == _SEGMENT else None
        if size is None or size[1] is None:
            break  # written live
        end = size[0] + size[1]
        if end > file.size:
            return Declared((*links, (start, file.size)), True)
        links.append((start, end))
        start = end
    if start < file.size:
        # What follows is no file of its own, or one of unknown size.
        if file.at(start, 4) == _EBML or not links:
            links.append((start, file.size))
        else:
            links[-1] = (links[-1][0], file.size)
    return Declared(tuple(links))


def _ebml_size(file: PreadFile, at: int) -> tuple[int, int | None] | None:
    """Where the content begins, and its size (None: unknown)."""
    data = file.at(at, 8)
    if not data or not data[0]:
        return None
    length = 9 - data[0].bit_length()
    if len(data) < length:
        return None
    value = int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1)
    return at + length, None if value == (1 << 7 * length) - 1 else value


# --- Ogg ------------------------------------------------------------------------------------------

_PAGE = b"OggS"
_PAGE_HEADER = 27
_BEGINS = 2


def _ogg(file: PreadFile) -> Declared:
    """A link is a group of streams that begin together. FFmpeg follows a chain of links only if
    all are alike."""
    starts = [0]
    begun, at, last, cut = False, 0, 0, False
    for _ in range(_PIECES):
        header = file.at(at, _PAGE_HEADER + 255)
        if not header.startswith(_PAGE):
            # The page before may be cut short, and the next one begin where it should go on.
            found = file.find(_PAGE, last + 1) if at < file.size else -1
            if found < 0:
                return Declared(_between(starts, file.size), cut)
            cut = cut or found < at
            at = found
            continue
        last = at
        segments = header[_PAGE_HEADER : _PAGE_HEADER + header[26]] if len(header) > 26 else b""
        end = at + _PAGE_HEADER + len(segments) + sum(segments)
        if len(header) <= 26 or len(segments) < header[26] or end > file.size:
            return Declared(_between(starts, file.size), missing=True)
        begins = bool(header[5] & _BEGINS)
        if begins and begun:
            _add_link(starts, at)
        begun = not begins
        at = end
    return Declared(_between(starts, file.size), cut)


def _add_link(starts: list[int], start: int) -> None:
    if len(starts) == MAX_LINKS:
        raise BadAudio(f"audio: more than {MAX_LINKS} files stand one behind another in it")
    starts.append(start)


def _between(starts: list[int], end: int) -> tuple[tuple[int, int], ...]:
    return tuple(zip(starts, [*starts[1:], end], strict=True))


_WALKS: tuple[tuple[bytes, Callable[[PreadFile], Declared]], ...] = (
    (b"RIFF", _riff),
    (b"RF64", _riff),
    (b"BW64", _riff),
    (b"FORM", _aiff),
    (b"caff", _caf),
    (b"riff", _w64),
    (b".snd", _au),
    (b".SoX", _sox),
    (b"XoS.", _sox),
    (b"Creative Voice File", _voc),
    (_EBML, _matroska),
    (_PAGE, _ogg),
)
