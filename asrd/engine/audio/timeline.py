"""The container's clock: the silence missing before a frame, and the end that is claimed."""

import re
from typing import Any

import av

from asrd.engine.audio.layout import id3_end
from asrd.engine.audio.preadfile import PreadFile

# A difference of up to this much between the timestamps and the count of samples is jitter: a
# Matroska file rounds to milliseconds, an encoder's delay is up to 130 ms (AAC at 8 kHz), and many
# tracks start a little after their picture. Whisper's own times are no better, and nobody notices a
# cue that is 0.2 s off. More is a gap, and is filled. Differences add up: many small gaps count.
JITTER_SECONDS = 0.2
# A longer gap is no pause but a clock that was set, or a damaged timestamp. It is left out.
LONGEST_GAP_SECONDS = 3600.0
# Containers whose timestamps are a clock of their own, and not the count of samples or bytes.
_TIMED = frozenset({"asf", "flv", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "ogg"})
# Their clocks start with the recording; others' may show the time of the day.
_FROM_ZERO = frozenset({"matroska", "mov"})
# These state the number of samples, or the time at which each track ends.
_EXACT = frozenset(
    {"ape", "dsf", "flac", "flv", "mov", "mpc", "mpc8", "nistsphere", "qoa", "rm", "tak", "tta"}
    | {"wv", "xwma"}
)
_DURATION = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d(?:\.\d+)?)")


class Timeline:
    """The clock of one stream.

    Attributes, in seconds: `before`, the length of the recording before this clock's zero; `end`,
    what is known since then; `left_out`, what the clock jumped ahead without any sound;
    `claimed_end`, at which the container says that the stream ends, None if it does not say.
    """

    def __init__(
        self, container: Any, stream: Any, kind: str, file: PreadFile, before: float = 0.0
    ) -> None:
        start = (container.start_time or 0) / 1e6
        near = kind in _FROM_ZERO and 0 <= start <= LONGEST_GAP_SECONDS
        # The clock's time at its zero, moved by what is left out.
        self._zero = 0.0 if near else start
        # Seconds of a tick of the clock; 0 if the clock says nothing.
        self._tick = float(stream.time_base or 0) if kind in _TIMED else 0.0
        self.before = before
        self.end = 0.0
        self.left_out = 0.0
        self.claimed_end = _claimed_end(container, stream, kind, file, self._zero)

    @property
    def seconds(self) -> float:
        """The length of the recording as far as it is known."""
        return self.before + self.end

    def gap_before(self, frame: Any, following: Any) -> float:
        """Returns the seconds of silence that belong before this frame, and counts both.

        The `following` frame, if any, must be as late: a damaged timestamp stands alone.
        Timestamps that jump back, or overlap, take nothing away: no speech is lost, and the frames
        are in their places again once the clock has caught up.
        """
        # A rate of 0 is refused as any absurd one, when the frame is converted.
        length = frame.samples / max(1, frame.sample_rate)
        gap = self._ahead(frame)
        if following is not None and following.pts is not None:
            gap = min(gap, self._ahead(following) - length)
        if gap <= JITTER_SECONDS:
            gap = 0.0
        elif gap > LONGEST_GAP_SECONDS:
            self.left_out += gap
            self._zero += gap
            gap = 0.0
        self.end += gap + length
        return gap

    def _ahead(self, frame: Any) -> float:
        """Returns the seconds by which its timestamp is ahead of what is known."""
        if not self._tick or frame.pts is None:
            return 0.0
        ahead: float = frame.pts * self._tick - self._zero - self.end
        return ahead


def whole_duration(container: Any) -> float | None:
    """Returns the seconds that the container claims for all of it, which may be a guess."""
    duration = container.duration
    return duration / av.time_base if duration and duration > 0 else None


def _claimed_end(
    container: Any, stream: Any, kind: str, file: PreadFile, origin: float
) -> float | None:
    """None for a container that says nothing, or guesses from a bit rate."""
    alone = len(container.streams) == 1
    if kind == "matroska":
        # A tag that mkvmerge and FFmpeg write.
        tag = _DURATION.fullmatch(str(stream.metadata.get("DURATION", ""))[:18])
        if tag:
            end = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
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


def _counts_frames(file: PreadFile) -> bool:
    """Returns True if an MP3's first frame says how many there are (Xing, LAME, VBRI) and FFmpeg
    uses that: it does not if the file has many more bytes than the frame says, as appended files
    have."""
    start = id3_end(file)
    first = file.at(start, 256)
    for name in (b"Xing", b"Info"):
        place = first.find(name)
        if place >= 0:
            flags = int.from_bytes(first[place + 4 : place + 8], "big")
            count = int.from_bytes(first[place + 12 : place + 16], "big") if flags & 3 == 3 else 0
            return bool(flags & 1) and not (count and file.size - start - count > count >> 4)
    return b"VBRI" in first
