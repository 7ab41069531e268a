"""Warnings about what could not be read of a media file."""

from asrd.engine.audio.declared import Declared
from asrd.engine.audio.section import Section
from asrd.errors import WarningCode
from asrd.wire.records import WEEK_S, JobWarning

# Less than claimed by so much is no rounding, priming or padding: the longest of these is a codec's
# frame or two, and the clock of a recorder that differs from that of its samples.
_SECONDS, _SHARE = 0.5, 0.002
# At the end a packet or two may be what is left of a file that was cut, or somebody's tag.
_TRAILING_PACKETS = 3
# More than this was not even looked at when FFmpeg gave up.
_TRAILING_BYTES, _TRAILING_SHARE = 1 << 16, 0.02


class Losses:
    """The losses in all sections of a file."""

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._missing = 0.0
        self._claimed = False
        self._skipped = 0
        self._trailing = 0
        self._places = 0
        self._jumped = 0.0
        self._gave_up = ""

    def add(self, section: Section, following: Section | None) -> None:
        """A section that was read to its end, and the one that comes after it, if any."""
        if section.heard:
            # So it was not the end that the one before had seen.
            self._trailing, self._gave_up = 0, ""
            self._places += section.after_damage
        self._skipped += section.skipped
        if section.trailing > _TRAILING_PACKETS:
            self._trailing = section.trailing
        unread = section.unread_bytes
        if section.gave_up and unread > max(_TRAILING_BYTES, _TRAILING_SHARE * section.file_bytes):
            self._gave_up = f"{section.gave_up}, {unread} bytes before its end"
        if following is None or following.timeline is not section.timeline:
            self._jumped += section.timeline.left_out
            self._claim(section)

    def _claim(self, section: Section) -> None:
        claimed = section.claimed_end
        # Without any sound it is a track that can't be decoded, which is another story.
        if claimed is None or claimed > WEEK_S or not section.timeline.end:
            return
        missing = claimed - section.timeline.end - section.timeline.left_out
        if missing > _SECONDS + _SHARE * claimed:
            self._claimed = True
            self._missing += missing

    def warnings(self, read: float) -> list[JobWarning]:
        """`read`: the seconds of the whole recording."""
        found = []
        if self._claimed or self._declared.missing or self._gave_up:
            found.append(self._incomplete(read))
        if self._skipped or self._trailing or self._places or self._jumped:
            found.append(JobWarning(WarningCode.AUDIO_DAMAGED, f"audio: {self._damage()}"))
        return found

    def _incomplete(self, read: float) -> JobWarning:
        claimed: float | None = read + self._missing if self._claimed else None
        if claimed is None and self._declared.share:
            claimed = read / self._declared.share
        if claimed is not None and claimed > WEEK_S:
            claimed = None
        if claimed is not None:
            text = f"the file says that it lasts {claimed:.1f} s, but holds only {read:.1f} s"
        elif self._declared.missing:
            text = "the file is cut short: bytes that it announces are missing"
        elif self._claimed:
            text = "the file says that it lasts for more than a week"
        else:
            text = f"the file can't be read to its end: {self._gave_up}"
        return JobWarning(
            WarningCode.AUDIO_INCOMPLETE,
            f"audio: {text}",
            None if claimed is None else round(claimed, 3),
            round(read, 3),
        )

    def _damage(self) -> str:
        parts = []
        if skipped := self._skipped + self._trailing:
            parts.append(f"{_counted(skipped, 'packet')} could not be decoded")
        if self._places:
            parts.append(f"reading went on behind {_counted(self._places, 'damaged place')}")
        if self._jumped:
            parts.append(f"its clock jumps ahead by {self._jumped:.0f} s, which were left out")
        return "; ".join(parts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
