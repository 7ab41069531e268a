"""Each channel of a recording by itself (`split_channels`): a call has one speaker in each.

The channels are transcribed one after another, as if each were a recording of its own. Segments
are handed out once all channels are done, in the order of time, so that a client that streams sees
the same segments as the transcript has.
"""

from collections.abc import Callable
from dataclasses import replace

from asrd.engine.interface import OnProgress, OnSegment, Transcription
from asrd.engine.prepared import Prepared
from asrd.errors import BadRequest, TooLarge
from asrd.wire.fds import Closing
from asrd.wire.records import Segment

MAX_CHANNELS = 8

Prepare = Callable[[int, OnProgress], Prepared]
Run = Callable[[Prepared, OnProgress, OnSegment], Transcription]


class Channels(Closing):
    """The channels of one job. The first is prepared ahead, the others when their turn comes.

    `prepare` returns a channel, by its number, and reports its progress.
    """

    def __init__(self, count: int, prepare: Prepare, on_progress: OnProgress) -> None:
        """Raises what `prepare` raises, and BadRequest for too many channels."""
        if count > MAX_CHANNELS:
            raise BadRequest(
                f"split_channels: the recording has {count} channels, and at most {MAX_CHANNELS} "
                "are transcribed by themselves"
            )
        self._count = count
        self._prepare = prepare
        try:
            self._first = prepare(0, on_progress)
        except TooLarge as error:
            raise self._explained(error) from None

    def close(self) -> None:
        self._first.close()

    def run(self, run: Run, on_progress: OnProgress, on_segment: OnSegment) -> Transcription:
        """The transcription of all channels. Raises what `run` and the callbacks raise."""
        try:
            found = [self._run(number, run, on_progress) for number in range(self._count)]
        except TooLarge as error:
            raise self._explained(error) from None
        merged = _merge(found)
        for segment in merged.segments:
            on_segment(segment)
        return merged

    def _explained(self, error: TooLarge) -> TooLarge:
        return TooLarge(f"{error.text} for each of {self._count} channels (split_channels)")

    def _run(self, number: int, run: Run, on_progress: OnProgress) -> Transcription:
        def report(done: float, total: float | None) -> None:
            before = number * (total or 0.0)
            on_progress((before + done) / self._count, total)

        def keep(segment: Segment) -> None:
            pass

        if number == 0:
            return run(self._first, report, keep)
        with self._prepare(number, report) as prepared:
            return run(prepared, report, keep)


def _merge(found: list[Transcription]) -> Transcription:
    """One transcription of several, whose segments have their channel and a new `id`.

    The language is that of the channel with the most text.
    """
    segments = sorted(
        (
            replace(segment, channel=channel)
            for channel, transcription in enumerate(found)
            for segment in transcription.segments
        ),
        key=lambda segment: (segment.start, segment.channel),
    )
    most = max(found, key=lambda transcription: len(transcription.text))
    return replace(
        most,
        text="".join(segment.text for segment in segments).strip(),
        audio_seconds=max(transcription.audio_seconds for transcription in found),
        segments=tuple(replace(segment, id=i) for i, segment in enumerate(segments, 1)),
        warnings=tuple(dict.fromkeys(w for transcription in found for w in transcription.warnings)),
    )
