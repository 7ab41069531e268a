"""Warnings about what could not be read of a media file."""

from asrd.engine.audio.layout import Layout
from asrd.engine.audio.section import Section
from asrd.errors import WarningCode
from asrd.wire.records import WEEK_S, JobWarning

# A smaller difference from the claimed length is rounding, priming or padding: at most a codec's
# frame or two, or the difference between the clock of a recorder and that of its samples.
_SECONDS, _SHARE = 0.5, 0.002
# So few packets at the end may be the rest of a file that was cut, or a tag.
_TRAILING_PACKETS = 3
# FFmpeg did not even look at the rest if it is longer than both.
_TRAILING_BYTES, _TRAILING_SHARE = 1 << 16, 0.02

CUT_SHORT = "the file is cut short: bytes that it announces are missing"


class Losses:
    """The losses in all sections of a file."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        # Seconds less than claimed; None if no section has clearly less.
        self._missing: float | None = None
        self._skipped = 0
        self._trailing = 0
        self._places = 0
        self._jumped = 0.0
        self._gave_up = ""
        self._after_damage = False

    def add(self, section: Section, following: Section | None) -> None:
        """Adds a section that was read to its end. `following` is the next one."""
        if section.heard:
            # The end that FFmpeg saw before was none.
            self._trailing, self._gave_up = 0, ""
            self._places += self._after_damage
        self._skipped += section.skipped
        if section.trailing > _TRAILING_PACKETS:
            self._trailing = section.trailing
        size = section.file.size
        unread = size - section.good_end
        if section.gave_up and unread > max(_TRAILING_BYTES, _TRAILING_SHARE * size):
            self._gave_up = f"{section.gave_up}, {unread} bytes before its end"
        goes_on = following is not None and following.timeline is section.timeline
        self._after_damage = goes_on or bool(section.gave_up)
        if not goes_on:
            self._jumped += section.timeline.left_out
            self._compare_claim(section)

    def _compare_claim(self, section: Section) -> None:
        timeline = section.timeline
        claimed = timeline.claimed_end
        # A track without any sound can't be decoded, which is reported as such.
        if claimed is None or claimed > WEEK_S or not timeline.end:
            return
        missing = claimed - timeline.end - timeline.left_out
        if missing > _SECONDS + _SHARE * claimed:
            self._missing = (self._missing or 0.0) + missing

    def warnings(self, read: float) -> list[JobWarning]:
        """`read`: the seconds of the whole recording."""
        found = []
        if self._missing is not None or self._layout.missing or self._gave_up:
            found.append(self._incomplete(read))
        if self._skipped or self._trailing or self._places or self._jumped:
            found.append(JobWarning(WarningCode.AUDIO_DAMAGED, f"audio: {self._damage()}"))
        return found

    def _incomplete(self, read: float) -> JobWarning:
        claimed: float | None = None
        if self._missing is not None:
            claimed = read + self._missing
        elif self._layout.share:
            claimed = read / self._layout.share
        if claimed is not None and claimed <= WEEK_S:
            text = f"the file says that it lasts {claimed:.1f} s, but holds only {read:.1f} s"
            return JobWarning(
                WarningCode.AUDIO_INCOMPLETE, f"audio: {text}", round(claimed, 3), round(read, 3)
            )
        text = f"the file can't be read to its end: {self._gave_up}"
        if self._layout.missing:
            text = CUT_SHORT
        elif claimed is not None:
            text = "the file says that it lasts for more than a week"
        return JobWarning(WarningCode.AUDIO_INCOMPLETE, f"audio: {text}", None, round(read, 3))

    def _damage(self) -> str:
        parts = []
        if skipped := self._skipped + self._trailing:
            parts.append(f"{_counted(skipped, 'packet')} could not be decoded")
        if self._places:
            parts.append(f"reading went on behind {_counted(self._places, 'damaged place')}")
        if self._jumped:
            parts.append(f"its clock jumps ahead by {self._jumped:.0f} s, which were left out")
        return "; ".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"
