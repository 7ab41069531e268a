"""The kinds of media files that are accepted, and how FFmpeg opens them."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import av

from asrd.engine.audio.preadfile import PreadFile
from asrd.errors import BadAudio

# Containers of audio and video that name no other file, and whose demuxers people use. Left out on
# purpose: playlists and what opens other files or ports (hls, dash, concat, imf, sdp, rtp, rtsp,
# sap, image2, lavfi, vobsub ...), pictures, subtitles, devices, the formats of single games (old
# parsers that nobody maintains), and raw streams that FFmpeg knows only by a file's name.
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
    # A second lock behind the list above: FFmpeg opens nothing by itself.
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


def open_container(file: PreadFile, *, fragment_by_fragment: bool = False) -> Any:
    """Returns FFmpeg's view of the file. Raises BadAudio if its kind is not accepted.

    `fragment_by_fragment`: FFmpeg reads each header of an MP4's fragments when its turn comes, and
    not all of them at first.
    """
    _limit_allocations()
    file.allowance = _HEADER_BYTES
    file.seek(0)
    options = {**OPTIONS, "fflags": "+ignidx"} if fragment_by_fragment else OPTIONS
    try:
        return av.open(file, mode="r", metadata_errors="ignore", container_options=options)
    except av.ArgumentError:
        raise BadAudio(f"audio: this kind of file is not accepted; {ACCEPTED}") from None
    except av.FFmpegError as error:
        raise BadAudio(
            f"audio: is not a media file that can be read: {reason(error)}; {ACCEPTED}"
        ) from None


@functools.cache
def _limit_allocations() -> None:
    """PyAV has no function for this, so the library that PyAV has loaded is called."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if Path(path).name.startswith("libavutil"):
            ctypes.CDLL(f"/{path}").av_max_alloc(ctypes.c_size_t(_ALLOCATION))
            return


def reason(error: Exception) -> str:
    """Returns FFmpeg's words without the number and the name that PyAV puts around them."""
    return getattr(error, "strerror", None) or str(error)
