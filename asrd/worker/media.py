"""Media files: one audio track of whatever FFmpeg decodes.

A file is read as one section or several, each of which FFmpeg opens as a file of its own: the
links of a chain (asrd.worker.declared), and what follows a place at which FFmpeg gives up.
"""

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from asrd.errors import BadAudio, WarningCode
from asrd.worker.converter import Converter
from asrd.worker.declared import declared
from asrd.worker.losses import Losses
from asrd.worker.pcm import Pcm
from asrd.worker.preadfile import PreadFile
from asrd.worker.recording import BLOCK_SECONDS, RATE, Recording, Samples
from asrd.worker.samples import SampleChecks
from asrd.worker.section import Section

_SILENT = np.zeros(BLOCK_SECONDS * RATE, np.float32)


class Media(Recording):
    """See asrd.worker.audio.open_recording."""

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
        if self._declared.missing and require_complete:
            raise BadAudio("audio: the file is cut short: bytes that it announces are missing")
        self._section = Section(file.part(*self._declared.links[0]), track)
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

    def again(self) -> Recording:
        """The bytes behind the header: what FFmpeg gives, at a tenth of the price."""
        audio, start, end = self._section.pcm()
        return Pcm(self._file.part(start, end), audio, self._max_seconds)

    def _read(self) -> Generator[Samples, None, None]:
        converter: Converter | None = None
        for frame, gap, until in self._frames():
            # Before it is converted, which takes several times its memory.
            self._refuse_longer(until)
            if converter is None or gap or not converter.takes(frame):
                if converter is not None:
                    yield from converter.finish()
                yield from _silence(gap)
                converter = Converter(frame, self._checks, self._channel)
            yield from converter.convert(frame)
        if converter is None:
            raise BadAudio(f"audio: can't be decoded: {self._section.failure}")
        yield from converter.finish()
        self._conclude()

    def _conclude(self) -> None:
        """Add what the client should know. Raises BadAudio."""
        self.warnings += self._checks.warnings()
        for warning in self._losses.warnings(self.seconds):
            if self._require_complete and warning.code == WarningCode.AUDIO_INCOMPLETE:
                raise BadAudio(f"{warning.text} (require_complete)")
            self.warnings.append(warning)

    def _frames(self) -> Iterator[tuple[Any, float, float]]:
        """Every frame of every section; the seconds of silence that belong before it; and the
        seconds of the recording up to its end."""
        links = iter(self._declared.links[1:])
        before, packets = 0.0, 0
        while True:
            section = self._section
            for frame, gap in section.frames():
                self.packets = packets + section.packets
                yield frame, gap, before + section.timeline.end
            packets += section.packets
            following = section.following()
            if following is None and (link := next(links, None)) is not None:
                following = Section(self._file.part(*link), self._track)
            self._losses.add(section, following)
            if following is None:
                return
            if following.timeline is not section.timeline:
                before += section.timeline.end
            section.close()
            self._section = following


def _silence(seconds: float) -> Iterator[Samples]:
    left = round(seconds * RATE)
    while left > 0:
        yield _SILENT[:left]
        left -= len(_SILENT)
