"""Media files: one audio track of whatever FFmpeg decodes.

A file is read as one section or several, each of which FFmpeg opens as a file of its own: the
links of a chain (asrd.engine.audio.declared), and what follows a place at which FFmpeg gives up.
"""

from collections.abc import Generator, Iterator

import numpy as np

from asrd.engine.audio.converter import Converter
from asrd.engine.audio.declared import declared
from asrd.engine.audio.losses import Losses
from asrd.engine.audio.pcm import Pcm
from asrd.engine.audio.preadfile import PreadFile
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, AudioReader, Samples
from asrd.engine.audio.samples import SampleChecks
from asrd.engine.audio.section import Section
from asrd.errors import BadAudio, WarningCode

_CUT_SHORT = "audio: the file is cut short: bytes that it announces are missing"
_SILENT = np.zeros(BLOCK_SECONDS * RATE, np.float32)


class Media(AudioReader):
    """See asrd.engine.audio.opening.open_recording."""

    def __init__(
        self,
        file: PreadFile,
        max_seconds: float,
        track: int | str | None = None,
        require_complete: bool = False,
        channel: int | None = None,
    ) -> None:
        self._file = file
        self._track = track
        self._require_complete = require_complete
        self._channel = channel
        self._checks = SampleChecks()
        self._declared = declared(file)
        self._losses = Losses(self._declared)
        # Seconds of sound and silence in the sections that were read.
        self._seconds_before = 0.0
        cut = self._declared.missing
        if cut and require_complete:
            raise BadAudio(f"{_CUT_SHORT} (require_complete)")
        try:
            self._section = Section(file.part(*self._declared.links[0]), track)
        except BadAudio:
            if cut:
                raise BadAudio(f"{_CUT_SHORT}, and it can't be read without them") from None
            raise
        try:
            total = self._section.total_seconds
            if len(self._declared.links) > 1 or (total or 0.0) > max_seconds:
                # It knows only its first part, or claims more than anything may last, and such a
                # claim is a mistake more often than a recording. Reading it will tell.
                total = None
            super().__init__(total, max_seconds, self._section.channels)
            self.warnings += self._section.warnings
        except BaseException:
            self._section.close()
            raise

    def close(self) -> None:
        super().close()
        self._section.close()

    @property
    def plain(self) -> bool:
        return self._section.plain and len(self._declared.links) == 1

    def again(self) -> AudioReader:
        """The bytes behind the header: what FFmpeg gives, at a tenth of the price."""
        audio, start, end = self._section.pcm()
        return Pcm(self._file.part(start, end), audio, self._max_seconds)

    def _read(self) -> Generator[Samples, None, None]:
        heard = False
        for section in self._sections():
            before, packets = self._seconds_before, self.packets
            timeline, left = section.timeline, self._max_seconds - before
            converter: Converter | None = None
            for frame, gap in section.frames():
                self.packets = packets + section.packets
                # Before it is converted, which takes several times its memory.
                if timeline.end > left:
                    self._refuse_longer(before + timeline.end)
                if converter is None or gap or not converter.takes(frame):
                    if converter is not None:
                        yield from converter.finish()
                    if gap:
                        yield from self._silence(gap)
                    converter = Converter(frame, self._checks, self._channel, self.seconds)
                yield from converter.convert(frame)
            if converter is not None:
                heard = True
                yield from converter.finish()
            self._seconds_before = before + timeline.end
        if not heard:
            raise BadAudio(f"audio: can't be decoded: {self._section.failure}")
        self._conclude()

    def _conclude(self) -> None:
        """Add what the client should know. Raises BadAudio."""
        self.warnings += self._checks.warnings()
        for warning in self._losses.warnings(self.seconds):
            if self._require_complete and warning.code == WarningCode.AUDIO_INCOMPLETE:
                raise BadAudio(f"{warning.text} (require_complete)")
            self.warnings.append(warning)

    def _sections(self) -> Iterator[Section]:
        """One after another; each is read before the next one is asked for, and then closed."""
        links = iter(self._declared.links[1:])
        while True:
            section = self._section
            before = self._seconds_before
            yield section
            following = section.another_track()
            if following is not None:
                self.warnings[:] = following.warnings
            else:
                following = section.following()
            if following is None and (link := next(links, None)) is not None:
                following = Section(self._file.part(*link), self._track)
            self._losses.add(section, following)
            if following is None:
                return
            if following.timeline is section.timeline:
                # Its end counts from the same beginning.
                self._seconds_before = before
            section.close()
            self._section = following

    def _silence(self, seconds: float) -> Iterator[Samples]:
        left = round(seconds * RATE)
        # All that was converted has been taken.
        self.gaps.append((self.seconds, self.seconds + left / RATE))
        while left > 0:
            yield _SILENT[:left]
            left -= len(_SILENT)
