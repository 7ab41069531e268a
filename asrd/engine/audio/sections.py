"""The sections of a file: each file of a chain, and what follows a place where FFmpeg gives up."""

from collections.abc import Iterator

from asrd.engine.audio import mp4
from asrd.engine.audio.layout import Layout
from asrd.engine.audio.losses import Losses
from asrd.engine.audio.preadfile import PreadFile
from asrd.engine.audio.section import Section
from asrd.errors import BadAudio, BadRequest
from asrd.wire.fds import Closing

# The first bytes of another file of the same kind, behind the place where FFmpeg gave up or saw the
# end. A WavPack file has these at each block.
_BEGINNINGS = {
    "aiff": b"FORM",
    "au": b".snd",
    "caf": b"caff",
    "flv": b"FLV\x01",
    "matroska": b"\x1a\x45\xdf\xa3",
    "tta": b"TTA1",
    "voc": b"Creative Voice File\x1a",
    "w64": b"riff\x2e\x91\xcf\x11",
    "wav": b"RIFF",
    "wv": b"wvpk",
}
# No file is shorter: the search for the next beginning goes on so far behind the last one.
_STEP = 8
# Places at which reading resumes in one file, and sections in a row without any audio. Each costs a
# millisecond or more.
_MOST = 1000
_MOST_EMPTY = 8


class Sections(Closing):
    """Iterate once; each section is read before the next one is asked for, and then closed.

    Attributes: `current`, the section to read, from the start on; `warnings` about its track;
    `losses`, complete at the end. Raises what Section raises.
    """

    def __init__(self, file: PreadFile, layout: Layout, track: int | str | None) -> None:
        self.current = Section(file.part(*layout.links[0]), track)
        self.warnings = list(self.current.warnings)
        self.losses = Losses(layout)
        self._file = file
        self._track = track
        self._links = iter(layout.links[1:])
        # Tracks of this link without any audio.
        self._silent: list[int] = []
        # Just behind the place at which reading resumed; 0 at the start of a link.
        self._begin = 0
        self._resumed = 0
        # Sections in a row without any audio.
        self._empty = 0

    def close(self) -> None:
        self.current.close()

    def __iter__(self) -> Iterator[Section]:
        while True:
            yield self.current
            following = self._another_track() or self._resume() or self._next_link()
            self.losses.add(self.current, following)
            if following is None:
                return
            self.current.close()
            self.current = following

    def _another_track(self) -> Section | None:
        """The same file again, if nothing of this track could be decoded."""
        section = self.current
        if section.heard or self._begin or self._track is not None:
            return None
        self._silent.append(section.number)
        if len(self._silent) in (section.tracks, _MOST_EMPTY):
            return None
        before = section.timeline.before
        following = Section(section.file, None, silent=self._silent, before=before)
        self.warnings[: len(section.warnings)] = following.warnings
        return following

    def _resume(self) -> Section | None:
        """The part of the file behind the last decoded packet, which FFmpeg does not see."""
        section = self.current
        self._empty = 0 if section.heard else self._empty + 1
        start = section.good_end
        while self._empty < _MOST_EMPTY and (place := self._next_beginning(start)) >= start:
            if self._resumed == _MOST:
                section.gave_up = f"it has more than {_MOST} parts"
                break
            self._resumed += 1
            try:
                return self._resumed_at(place)
            except (BadAudio, BadRequest):
                self._empty += 1
                start = place + _STEP
        return None

    def _next_beginning(self, start: int) -> int:
        """Returns an offset from `start` on; less if there is none."""
        section, file = self.current, self.current.file
        if section.kind == "mpegts":
            # It begins anywhere, but a short rest belongs to other streams.
            much = 8 * (file.size - start) > file.size or section.trailing
            return start if 0 < start < file.size and much else -1
        if section.kind == "mov":
            # FFmpeg has seen all that its boxes lead to, wherever their samples are.
            seen = 0 if section.fragment_by_fragment else mp4.boxes_end(file)
            return mp4.next_fragment(file, max(seen, start if section.gave_up else self._begin))
        magic = _BEGINNINGS.get(section.kind)
        return file.find(magic, start) if magic else -1

    def _resumed_at(self, place: int) -> Section:
        section = self.current
        timeline = section.timeline if section.kind in ("mov", "wv") else None
        file, begin = section.file.part(place, section.file.size), _STEP
        if section.kind == "mov":
            file, begin = mp4.from_fragment(section.file, place), place + _STEP
        before = section.timeline.seconds
        following = Section(file, self._track, timeline=timeline, before=before)
        self._begin = following.good_end = begin
        return following

    def _next_link(self) -> Section | None:
        link = next(self._links, None)
        if link is None:
            return None
        self._silent, self._begin, self._empty = [], 0, 0
        before = self.current.timeline.seconds
        return Section(self._file.part(*link), self._track, before=before)
