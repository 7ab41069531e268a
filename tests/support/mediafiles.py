"""Media files with gaps, several tracks or channels, and hostile headers."""

import tempfile
from collections.abc import Callable
from typing import Any

import av
import numpy as np

from asrd.engine.audio.reader import RATE, Samples
from tests.support.sounds import encoded, packets

# From the time of a packet to its new time, in seconds; None leaves the packet out.
Move = Callable[[float], float | None]


def remuxed(source: Any, container: str, move: Move = lambda at: at, **options: str) -> bytes:
    """The packets of a media file in another file, moved in time."""
    with tempfile.NamedTemporaryFile() as file:
        with (
            av.open(source) as read,
            av.open(file.name, "w", format=container, options=options) as written,
        ):
            stream: Any = written.add_stream_from_template(read.streams.audio[0])
            for packet in read.demux(read.streams.audio[0]):
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue
                at = move(float(packet.pts * packet.time_base))
                if at is not None:
                    packet.pts = packet.dts = round(at / packet.time_base)
                    packet.stream = stream
                    written.mux(packet)
        return file.read()


def with_tracks(
    tracks: list[tuple[Samples, dict[str, str]]], default: int | None = None, codec: str = "flac"
) -> bytes:
    """A Matroska file with a track for each of `tracks`, with its metadata."""
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format="matroska") as output:
            streams: list[Any] = []
            for number, (_, metadata) in enumerate(tracks):
                stream: Any = output.add_stream(codec, rate=RATE, layout="mono")
                stream.metadata.update(metadata)
                stream.disposition = int(number == default)
                streams.append(stream)
            for stream, (samples, _) in zip(streams, tracks, strict=True):
                for packet in packets(stream, samples):
                    output.mux(packet)
        return file.read()


def stereo(left: Samples, right: Samples, container: str, codec: str = "", rate: int = 0) -> bytes:
    pairs = np.stack((left, right), axis=1)
    return encoded(pairs, container, codec, rate, layout="stereo")


# --- hostile headers of MP4 -----------------------------------------------------------------------


def box(name: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4, "big") + name + data


def numbers(*values: int, size: int = 4) -> bytes:
    return b"".join(value.to_bytes(size, "big") for value in values)


def claiming(*, samples: int, size: int, ticks: int, codec: bytes = b"ulaw") -> bytes:
    """The start of a QuickTime file whose one track claims so many `samples` of `size` bytes, each
    `ticks` long. Its media data begins behind it."""
    ftyp = box(b"ftyp", b"qt  ", numbers(0), b"qt  ")

    def moov(start: int) -> bytes:
        entry = box(
            codec, bytes(6), numbers(1, 0, 0, 0, 0, 1, 16, 0, 0, size=2), numbers(8000 << 16)
        )
        table = box(
            b"stbl",
            box(b"stsd", numbers(0, 1), entry),
            box(b"stts", numbers(0, 1, samples, ticks)),
            box(b"stsc", numbers(0, 1, 1, samples, 1)),
            box(b"stsz", numbers(0, size, samples)),
            box(b"stco", numbers(0, 1, start)),
        )
        length = min(samples * ticks, (1 << 31) - 1)
        media = box(
            b"mdia",
            box(b"mdhd", numbers(0, 0, 0, 8000, length, 0)),
            box(b"hdlr", numbers(0, 0), b"soun", bytes(13)),
            box(b"minf", box(b"smhd", bytes(8)), table),
        )
        head = box(b"tkhd", numbers(7, 0, 0, 1, 0, length), bytes(60))
        return box(
            b"moov",
            box(b"mvhd", numbers(0, 0, 0, 1000, 1000), bytes(80)),
            box(b"trak", head, media),
        )

    start = len(ftyp) + len(moov(0)) + 16
    total = 16 + min(samples * size, 1 << 40)
    return ftyp + moov(start) + numbers(1) + b"mdat" + numbers(total, size=8)
