"""The container's clock: where a frame belongs, and what silence is missing before it."""

from typing import Any

# A difference of up to this much between the timestamps and the count of samples is jitter: a
# Matroska file rounds to milliseconds, an encoder's delay is up to 130 ms (AAC at 8 kHz), and many
# tracks start a little after their picture. Whisper's own times are no better, and nobody notices a
# cue that is 0.2 s off. More is a hole, and is filled. Differences add up: many small holes count.
JITTER_SECONDS = 0.2
# A longer gap is no pause but a clock that was set, or a damaged timestamp. It is left out.
LONGEST_GAP_SECONDS = 3600.0
# Containers whose timestamps are a clock of their own, and not the count of samples or bytes.
_TIMED = frozenset({"asf", "flv", "matroska", "mov", "mpeg", "mpegts", "mxf", "nut", "ogg"})
# Their clocks start with the recording; others' may show the time of the day.
_FROM_ZERO = frozenset({"matroska", "mov"})


class Timeline:
    """The clock of one stream. `origin` is its time at the start of the recording, `end` the
    seconds from there that are known, `left_out` what the clock jumped ahead without any sound."""

    def __init__(self, container: Any, stream: Any, kind: str) -> None:
        start = (container.start_time or 0) / 1e6
        near = kind in _FROM_ZERO and 0 <= start <= LONGEST_GAP_SECONDS
        self.origin = 0.0 if near else start
        self.end = 0.0
        self.left_out = 0.0
        # Seconds of a tick of the clock; 0 if the clock says nothing.
        self._tick = float(stream.time_base or 0) if kind in _TIMED else 0.0
        self._zero = self.origin

    def gap_before(self, frame: Any, following: Any) -> float:
        """The seconds of silence that belong before this frame, which is then the last one. The
        `following` one, if any, must be as late: a damaged timestamp stands alone.

        Timestamps that jump back, or overlap, take nothing away: nothing that was said is lost, and
        what comes next is in its place again once the clock has caught up.
        """
        # A rate of 0 is refused as any absurd one, when the frame is converted.
        length = frame.samples / max(1, frame.sample_rate)
        gap = self._ahead(frame)
        if following is not None and following.pts is not None:
            gap = min(gap, self._ahead(following) - length)
        if gap <= JITTER_SECONDS:
            self.end += length
            return 0.0
        if gap > LONGEST_GAP_SECONDS:
            self.left_out += gap
            self._zero += gap
            gap = 0.0
        self.end += gap + length
        return gap

    def _ahead(self, frame: Any) -> float:
        """The seconds by which its timestamp is ahead of what is known."""
        if not self._tick or frame.pts is None:
            return 0.0
        ahead: float = frame.pts * self._tick - self._zero - self.end
        return ahead
