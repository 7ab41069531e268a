"""Media files: one audio track of any kind of file that FFmpeg decodes."""

from collections.abc import Generator, Iterator

import numpy as np

from asrd.engine.audio.converter import Converter
from asrd.engine.audio.layout import layout
from asrd.engine.audio.losses import CUT_SHORT
from asrd.engine.audio.pcm import Pcm
from asrd.engine.audio.preadfile import PreadFile
from asrd.engine.audio.reader import BLOCK_SECONDS, RATE, AudioReader, Samples
from asrd.engine.audio.sections import Sections
from asrd.errors import BadAudio, WarningCode

_SILENT = np.zeros(BLOCK_SECONDS * RATE, np.float32)


class Media(AudioReader):
    """See asrd.engine.audio.opening.open_recording."""

    def __init__(
        self,
        file: PreadFile,
        max_seconds: float,
        track: int | str | None,
        require_complete: bool,
        channel: int | None,
    ) -> None:
        self._require_complete = require_complete
        self._channel = channel
        self._layout = layout(file)
        cut = self._layout.missing
        if cut and require_complete:
            raise BadAudio(f"audio: {CUT_SHORT} (require_complete)")
        try:
            self._sections = Sections(file, self._layout, track)
        except BadAudio:
            if cut:
                raise BadAudio(f"audio: {CUT_SHORT}, and it can't be read without them") from None
            raise
        total = self._sections.current.total_seconds
        if len(self._layout.links) > 1 or (total or 0.0) > max_seconds:
            # The container knows only its first part, or claims more than any recording may last,
            # and such a claim is a mistake more often than a recording.
            total = None
        super().__init__(total, max_seconds, self._sections.current.channels)
        self.warnings = self._sections.warnings

    def close(self) -> None:
        super().close()
        self._sections.close()

    @property
    def plain(self) -> bool:
        return self._sections.current.plain and len(self._layout.links) == 1

    def again(self) -> AudioReader:
        # FFmpeg gives the bytes behind the header, at ten times the price.
        audio, file = self._sections.current.pcm()
        return Pcm(file, audio, self._max_seconds)

    def _read(self) -> Generator[Samples, None, None]:
        converter = Converter(self._checks, self._channel)
        heard = False
        for section in self._sections:
            packets = self.packets
            for frame, gap in section.frames():
                heard = True
                self.packets = packets + section.packets
                # Converting takes several times the memory of the frame.
                self._refuse_longer(section.timeline.seconds)
                if gap:
                    yield from converter.finish()
                    yield from self._silence(gap)
                yield from converter.convert(frame)
            yield from converter.finish()
        if not heard:
            failure = self._sections.current.failure
            raise BadAudio(f"audio: can't be decoded: {failure}")
        self._conclude()

    def _silence(self, seconds: float) -> Iterator[Samples]:
        left = round(seconds * RATE)
        # All that was converted has been taken.
        self.gaps.append((self.seconds, self.seconds + left / RATE))
        while left > 0:
            yield _SILENT[:left]
            left -= len(_SILENT)

    def _conclude(self) -> None:
        """Adds the warnings about the whole file. Raises BadAudio."""
        self.warnings += self._checks.warnings()
        for warning in self._sections.losses.warnings(self.seconds):
            if self._require_complete and warning.code == WarningCode.AUDIO_INCOMPLETE:
                raise BadAudio(f"{warning.text} (require_complete)")
            self.warnings.append(warning)
