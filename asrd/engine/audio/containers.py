"""Kinds of media files that are accepted, how they are opened, and how long they say they are."""

import ctypes
import functools
import re
from pathlib import Path
from typing import Any

import av

from asrd.engine.audio.converter import said
from asrd.engine.audio.preadfile import PreadFile
from asrd.errors import BadAudio

# Containers of audio and video that name no other file, and whose demuxers people use. Not among
# them, on purpose: playlists and what opens other files or ports (hls, dash, concat, imf, sdp, rtp,
# rtsp, sap, image2, lavfi, vobsub ...), pictures, subtitles, devices, the formats of single games
# (old parsers that nobody looks after), and raw streams that FFmpeg knows by a file's name alone.
_CONTAINERS = (
    "aac,ac3,act,aea,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,avr,bonk,caf,codec2,dhav,dsf,dss,"
    "dts,dtshd,dv,eac3,epaf,flac,flv,g729,gsm,gxf,iamf,iff,ilbc,ircam,ivr,kux,lc3,live_flv,loas,"
    "matroska,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nsp,nsv,nut,ogg,oma,osq,pva,pvf,qcp,"
    "qoa,rka,rm,s337m,sds,shn,sox,spdif,tak,truehd,tta,ty,vivo,voc,vqf,w64,wav,wavarc,wsd,wtv,"
    "wv,wve,xwma"
)
ACCEPTED = (
    "accepted are audio and video files such as WAV, FLAC, MP3, AAC, MP4, M4A, MOV, 3GP, Matroska, "
    "WebM, Ogg, Opus, AIFF, AU, CAF, W64, AMR, GSM, WMA, ASF, AVI, FLV, MPEG, MPEG-TS, MXF, DV, "
    "RealMedia, AC-3, DTS, ALAC, APE, TTA, TAK, WavPack, Musepack, DSF, VOC, NIST SPHERE and DSS"
)
OPTIONS = {
    "format_whitelist": _CONTAINERS,
    # A second lock behind the list above: FFmpeg may open nothing by itself.
    "protocol_whitelist": "none",
    # A WAV of 16-bit samples may hold DTS instead; looking for it in all of the 2,500 packets
    # that FFmpeg would read makes a short file ten times as slow to open.
    "max_probe_packets": "1",
    # A WAV's packets of half a second instead of 64 ms take a quarter of the time.
    "max_size": "16384",
    # Each stream takes 10 KiB and more.
    "max_streams": "128",
}
# FFmpeg's largest single allocation. A table of five million packets (a day and more) takes that
# much. A hostile header claims as much as the file is long, and a sparse file can have any length.
_ALLOCATION = 1 << 27
# Read while a file is opened: its headers and tables. A day of AAC has a table of 16 MiB.
_HEADER_BYTES = 1 << 26
# These say the number of samples, or the time at which each track ends.
_EXACT = frozenset(
    {"ape", "dsf", "flac", "flv", "mov", "mpc", "mpc8", "nistsphere", "qoa", "rm", "tak", "tta"}
    | {"wv", "xwma"}
)
_DURATION = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d(?:\.\d+)?)")
# A tag of this size is followed by the first frame.
_ID3_HEADER = 10


def open_container(file: PreadFile, one_by_one: bool = False) -> Any:
    """FFmpeg's view of the file, of one of the accepted kinds. `one_by_one`: fragments of an MP4
    are first looked at when their turn comes. Raises BadAudio."""
    _limit_allocations()
    file.allowance = _HEADER_BYTES
    file.seek(0)
    options = {**OPTIONS, "fflags": "+ignidx"} if one_by_one else OPTIONS
    try:
        return av.open(file, mode="r", metadata_errors="ignore", container_options=options)
    except av.ArgumentError:
        raise BadAudio(f"audio: this kind of file is not accepted; {ACCEPTED}") from None
    except av.FFmpegError as error:
        raise BadAudio(
            f"audio: is not a media file that can be read: {said(error)}; {ACCEPTED}"
        ) from None


@functools.cache
def _limit_allocations() -> None:
    """PyAV has no way to say it, so it is said to the library that PyAV has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if Path(path).name.startswith("libavutil"):
            ctypes.CDLL(f"/{path}").av_max_alloc(ctypes.c_size_t(_ALLOCATION))
            return


def kind_of(container: Any) -> str:
    """The first of FFmpeg's names for the format."""
    kind: str = container.format.name.split(",")[0]
    return kind


def claimed_end(container: Any, stream: Any, file: PreadFile, origin: float) -> float | None:
    """The second, counted from `origin`, at which the container says that the stream ends; None if
    it says nothing, or only guesses from a bit rate."""
    kind = kind_of(container)
    alone = len(container.streams) == 1
    if kind == "matroska":
        said_so = _DURATION.fullmatch(str(stream.metadata.get("DURATION", ""))[:18])
        if said_so:
            hours, minutes, seconds = said_so.groups()
            end = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            # Some tools copy the tag and not all of the track.
            return min(end, whole_duration(container) or end) - origin
        return whole_duration(container) if alone else None
    if kind == "mp3":
        return whole_duration(container) if _counts_frames(file) else None
    if kind not in _EXACT:
        return None
    if stream.duration and stream.duration > 0:
        start = (stream.start_time or 0) * stream.time_base if kind == "mov" else 0
        return float(start + stream.duration * stream.time_base) - (origin if start else 0.0)
    return whole_duration(container) if alone else None


def whole_duration(container: Any) -> float | None:
    """The container's word for its length, which may be a guess."""
    duration = container.duration
    return duration / av.time_base if duration and duration > 0 else None


def _counts_frames(file: PreadFile) -> bool:
    """Returns True if an MP3's first frame says how many there are (Xing, LAME, VBRI) and FFmpeg
    uses that: it does not if the file has many more bytes than it says, as appended files have."""
    start = 0
    header = file.at(0, _ID3_HEADER)
    if header[:3] == b"ID3" and len(header) == _ID3_HEADER:
        size = 0
        for byte in header[6:]:
            size = size << 7 | byte & 0x7F
        start = _ID3_HEADER + size
    first = file.at(start, 256)
    for name in (b"Xing", b"Info"):
        place = first.find(name)
        if place >= 0:
            flags = int.from_bytes(first[place + 4 : place + 8], "big")
            count = int.from_bytes(first[place + 12 : place + 16], "big") if flags & 3 == 3 else 0
            return bool(flags & 1) and not (count and file.size - start - count > count >> 4)
    return b"VBRI" in first
