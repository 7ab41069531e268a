"""The boxes of an MP4 (ISO/IEC 14496-12): the outermost ones, and the packets that they claim."""

import re
from collections.abc import Iterator

from asrd.engine.audio.preadfile import PreadFile

# A day in fragments of a second has 172,800. A quarter of a million take half a second.
_MOST_BOXES = 1 << 18
_TABLE_BYTES = 1 << 26
# FFmpeg allocates a fragment's run at once, and fails at more than this: such a count is damaged.
_RUN = 6_000_000
_COUNTS = re.compile(rb"(stsz.{8}|stz2.{8}|trun.{4})(.{4})", re.DOTALL)
_DURATIONS = re.compile(rb"stts.{4}(.{4}.{8})", re.DOTALL)
# One run of samples of one tick each is PCM, of which FFmpeg makes packets of 1,024 samples.
_OF_PCM = re.compile(rb"\0\0\0\x01.{4}\0\0\0\x01", re.DOTALL)


def boxes(file: PreadFile) -> Iterator[tuple[bytes, int, int]]:
    """The outermost boxes, each as (name, start of its content, end), which may be past the file's.
    One that claims to reach to the end of the file (size 0) is left out."""
    start = 0
    for _ in range(_MOST_BOXES):
        data = file.at(start, 16)
        if len(data) < 8:
            return
        size, name, header = int.from_bytes(data[:4], "big"), data[4:8], 8
        if size == 1 and len(data) == 16:
            size, header = int.from_bytes(data[8:], "big"), 16
        if size < header:
            return
        yield name, start + header, start + size
        start += size


def boxes_end(file: PreadFile) -> int:
    """Returns the end of the last whole box that the sizes of those before it lead to."""
    last = 0
    for _, _, end in boxes(file):
        if end > file.size:
            break
        last = end
    return last


def fragments_begin(file: PreadFile) -> int:
    """Returns the end of the header of a file in fragments; 0 for any other file."""
    header_end = 0
    for name, _, end in boxes(file):
        if name == b"moov":
            header_end = end
        elif name == b"moof":
            return header_end
    return 0


def next_fragment(file: PreadFile, start: int) -> int:
    """Returns the offset of the next fragment from `start` on; negative if there is none."""
    begin = fragments_begin(file)
    # The size of a box is in front of its name.
    return file.find(b"moof", max(begin, start) + 4) - 4 if begin else -1


def from_fragment(file: PreadFile, start: int) -> PreadFile:
    """Returns the header and the fragments from `start` on. All offsets stay as they are: what lies
    between them becomes one box to skip."""
    begin = fragments_begin(file)
    size = start - begin
    patch = size.to_bytes(4, "big") + b"free"
    if size >= 1 << 32:
        patch = b"\0\0\0\1free" + size.to_bytes(8, "big")
    return file.patched(begin, patch) if size >= len(patch) else file


def count_packets(file: PreadFile, begin: int, end: int) -> int:
    """Returns the number of packets for which FFmpeg allocates memory, by the tables of a moov or
    moof, in any of their inner boxes."""
    data = file.at(begin, min(end - begin, _TABLE_BYTES))
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
