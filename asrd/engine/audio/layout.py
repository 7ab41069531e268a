"""The layout of a file by its own byte counts: missing bytes, and the files of a chain.

FFmpeg reports neither. It takes half of a WAV, CAF, W64 or AVI for the whole, and decodes the
second file of a chain with the codec of the first. Nothing is decoded here: each walk reads the
headers of a file's outermost pieces, a bounded number of them. A size in a header only decides
where to look next.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from asrd.engine.audio import mp4
from asrd.engine.audio.preadfile import PreadFile
from asrd.errors import BadAudio

# An hour of Opus has 3,600 pages. A quarter of a million pieces take half a second.
_PIECES = 1 << 18
# Opening one takes a millisecond.
MAX_LINKS = 1000
# Some recorders count their header (44 bytes of WAV) as samples.
_HEADER_SLACK = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """`links`: the (start, end) of each file in a chain, at least one. `missing`: the file
    announces bytes that are not there. `share`: the share of its samples that is there, if each
    second takes as many bytes as any other."""

    links: tuple[tuple[int, int], ...]
    missing: bool = False
    share: float | None = None


def layout(file: PreadFile) -> Layout:
    """Raises BadAudio if the chain is too long, or an MP4 claims too many packets."""
    head = file.at(0, 16)
    for magic, walk in _WALKS:
        if head.startswith(magic):
            return walk(file)
    if head[4:8] in _BOXES:
        return _mp4(file)
    if file.at(start := id3_end(file), 4) == _FLAC:
        return _flac(file, start)
    return Layout(((0, file.size),))


def id3_end(file: PreadFile) -> int:
    """Returns the end of the ID3v2 tag at the start of the file; 0 if there is none."""
    header = file.at(0, 10)
    if header[:3] != b"ID3" or len(header) < 10:
        return 0
    size = 0
    for byte in header[6:]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _chain(starts: list[int], end: int, missing: bool = False) -> Layout:
    if len(starts) > MAX_LINKS:
        raise BadAudio(f"audio: more than {MAX_LINKS} files stand one behind another in it")
    return Layout(tuple(zip(starts, [*starts[1:], end], strict=True)), missing)


# --- samples in one piece -------------------------------------------------------------------------

# A writer that can't go back leaves 0 as a size, or the largest number, or a little less.
_UNKNOWN_32, _UNKNOWN_64 = 0x7FFF0000, 1 << 62
# In WAV, CAF and W64; AIFF; 8SVX.
_OF_SAMPLES = frozenset({b"data", b"SSND", b"BODY"})


@dataclass(frozen=True, slots=True)
class _Chunks:
    """`first`: the offset of the first chunk. `header`: its name and size. `padding`: each chunk
    begins at a multiple of it. `counted`: the bytes of the header that the size includes."""

    first: int
    header: struct.Struct
    unknown: int = _UNKNOWN_32
    padding: int = 1
    counted: int = 0


_WAV = _Chunks(12, struct.Struct("<4sI"), padding=2)
_AIFF = _Chunks(12, struct.Struct(">4sI"), padding=2)
_CAF = _Chunks(8, struct.Struct(">4sQ"), _UNKNOWN_64)
_W64 = _Chunks(40, struct.Struct("<4s12xQ"), _UNKNOWN_64, padding=8, counted=24)


def _chunked(file: PreadFile, chunks: _Chunks, true_size: int = 0) -> Layout:
    """The chunk with the samples must end within the file. `true_size`, of 64 bits, replaces its
    own size."""
    start = chunks.first
    for _ in range(_PIECES):
        header = file.at(start, chunks.header.size)
        if len(header) < chunks.header.size:
            break
        name, size = chunks.header.unpack(header)
        size -= chunks.counted
        start += chunks.header.size
        if name in _OF_SAMPLES:
            unknown = _UNKNOWN_64 if true_size else chunks.unknown
            return _samples(file, start, true_size or size, unknown)
        if size < 0:
            break
        start += size
        start += -start % chunks.padding
    return _chain([0], file.size)


def _samples(file: PreadFile, begin: int, size: int, unknown: int = _UNKNOWN_32) -> Layout:
    """The samples are the `size` bytes from `begin` on, unless that is 0 or at least `unknown`."""
    if not 0 < size < unknown or begin + size <= file.size + _HEADER_SLACK:
        return _chain([0], file.size)
    return Layout(((0, file.size),), True, max(0, file.size - begin) / size)


def _riff(file: PreadFile) -> Layout:
    if file.at(8, 4) == b"AVI ":
        whole = _samples(file, 8, int.from_bytes(file.at(4, 4), "little"))
        # Its size is not that of the samples alone.
        return _chain([0], file.size, whole.missing)
    if file.at(12, 4) == b"ds64":
        # RF64 has the true size in its first chunk.
        return _chunked(file, _WAV, int.from_bytes(file.at(28, 8), "little"))
    return _chunked(file, _WAV)


def _au(file: PreadFile) -> Layout:
    begin, size = struct.unpack(">II", file.at(4, 8).ljust(8, b"\0"))
    return _samples(file, begin, size)


def _sox(file: PreadFile) -> Layout:
    order = "<" if file.at(0, 1) == b"." else ">"
    header, samples = struct.unpack(f"{order}IQ", file.at(4, 12).ljust(12, b"\0"))
    return _samples(file, 4 + header, 4 * samples, _UNKNOWN_64)


def _voc(file: PreadFile) -> Layout:
    start = int.from_bytes(file.at(20, 2), "little")
    for _ in range(_PIECES):
        header = file.at(start, 4)
        if len(header) < 4 or not header[0]:
            break
        start += 4 + int.from_bytes(header[1:], "little")
    return _chain([0], file.size, start > file.size + _HEADER_SLACK)


# --- chains ---------------------------------------------------------------------------------------

_BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx"}
)
# FFmpeg makes an entry of 24 bytes for each packet of each track, and a run of any number of them
# takes 8 bytes in a file. A day of AAC is four million.
_MOST_PACKETS = 16_000_000
_MUST_BE_WHOLE = frozenset({b"moov", b"moof", b"mdat", b"mfra"})


def _mp4(file: PreadFile) -> Layout:
    """A chain has an ftyp before each file. The header of fragments is often repeated, too, and
    FFmpeg reads the fragments behind it."""
    starts = [0]
    previous = 0
    whole = fragments = False
    packets = 0
    for name, begin, end in mp4.boxes(file):
        if name in (b"moov", b"moof"):
            packets += mp4.count_packets(file, begin, end)
            if packets > _MOST_PACKETS:
                raise BadAudio(f"audio: its tables claim {packets} packets, which is too many")
        if name in _MUST_BE_WHOLE and end > file.size:
            return _chain(starts, file.size, missing=True)
        fragments = fragments or name == b"moof"
        if name == b"ftyp" and whole and not fragments:
            starts.append(previous)
            whole = False
        whole = whole or name == b"moov"
        previous = end
    return _chain(starts, file.size)


_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def _matroska(file: PreadFile) -> Layout:
    """A chain is any number of EBML headers, each with a segment. The last one may be of unknown
    size, as those that are written live are, and have anything behind it."""
    starts = [0]
    while len(starts) <= MAX_LINKS:
        segment = _element_end(file, starts[-1] + len(_EBML))
        if segment is None or file.at(segment, 4) != _SEGMENT:
            break
        end = _element_end(file, segment + len(_SEGMENT))
        if end is None:
            break
        if end > file.size:
            return _chain(starts, file.size, missing=True)
        if file.at(end, 4) != _EBML:
            break
        starts.append(end)
    return _chain(starts, file.size)


def _element_end(file: PreadFile, start: int) -> int | None:
    """Returns the end of an element whose size is at `start`; None if that is unknown."""
    data = file.at(start, 8)
    if not data or not data[0]:
        return None
    length = 9 - data[0].bit_length()
    limit = 1 << 7 * length
    size = int.from_bytes(data[:length], "big") % limit
    return None if len(data) < length or size == limit - 1 else start + length + size


_PAGE = b"OggS"
_PAGE_HEADER = 27
_BEGINS = 2


def _ogg(file: PreadFile) -> Layout:
    """A link is a group of streams that begin together. FFmpeg follows a chain of links only if
    all are alike."""
    starts = [0]
    at = last = 0
    begun = cut = False
    for _ in range(_PIECES):
        header = file.at(at, _PAGE_HEADER + 255)
        if not header.startswith(_PAGE):
            # The page before may be cut short, and the next one begin inside of it.
            found = file.find(_PAGE, last + 1) if at < file.size else -1
            if found < 0:
                break
            cut = cut or found < at
            at = found
            continue
        last = at
        segments = header[_PAGE_HEADER : _PAGE_HEADER + header[26]] if len(header) > 26 else b""
        end = at + _PAGE_HEADER + len(segments) + sum(segments)
        if len(header) <= 26 or len(segments) < header[26] or end > file.size:
            return _chain(starts, file.size, missing=True)
        begins = bool(header[5] & _BEGINS)
        if begins and begun:
            starts.append(at)
        begun = not begins
        at = end
    return _chain(starts, file.size, cut)


_FLAC = b"fLaC"
# The first block of metadata has 34 bytes (RFC 9639, section 8.2), and may be the only one.
_STREAMINFO = (b"\0\0\0\x22", b"\x80\0\0\x22")


def _flac(file: PreadFile, start: int) -> Layout:
    """FFmpeg's parser looks several frames ahead, and does not see that another file begins."""
    starts = [0]
    for _ in range(_PIECES):
        start = file.find(_FLAC, start + len(_FLAC))
        if start < 0 or len(starts) > MAX_LINKS:
            break
        if file.at(start + len(_FLAC), 4) in _STREAMINFO:
            starts.append(start)
    return _chain(starts, file.size)


_WALKS: tuple[tuple[bytes, Callable[[PreadFile], Layout]], ...] = (
    (b"RIFF", _riff),
    (b"RF64", _riff),
    (b"BW64", _riff),
    (b"FORM", lambda file: _chunked(file, _AIFF)),
    (b"caff", lambda file: _chunked(file, _CAF)),
    (b"riff", lambda file: _chunked(file, _W64)),
    (b".snd", _au),
    (b".SoX", _sox),
    (b"XoS.", _sox),
    (b"Creative Voice", _voc),
    (_EBML, _matroska),
    (_PAGE, _ogg),
)
