"""Each channel of a recording transcribed separately (`split_channels`): a call has one speaker in
each.

The channels are transcribed one after another, as if each were a recording of its own. Segments
are reported once all channels are done, sorted by time, so that a client that streams sees the
same segments as the transcript has.
"""

from collections.abc import Callable
from dataclasses import replace

from asrd.engine.interface import OnProgress, OnSegment, Transcription
from asrd.engine.prepared import Prepared
from asrd.errors import BadRequest, TooLarge
from asrd.wire.fds import Closing

MAX_CHANNELS = 8


class Channels(Closing):
    """The channels of one job. The first is prepared at once, each other when its turn comes.

    `prepare` takes the number of a channel and a callback for its progress.
    """

    def __init__(
        self, count: int, prepare: Callable[[int, OnProgress], Prepared], on_progress: OnProgress
    ) -> None:
        """Raises what `prepare` raises, and BadRequest for too many channels."""
        if count > MAX_CHANNELS:
            raise BadRequest(
                f"split_channels: the recording has {count} channels; at most {MAX_CHANNELS} can "
                "be transcribed separately"
            )
        self._count = count
        self._prepare = prepare
        try:
            self._first = prepare(0, on_progress)
        except TooLarge as error:
            raise self._explained(error) from None

    def close(self) -> None:
        self._first.close()

    def run(
        self,
        run: Callable[[Prepared, OnProgress], Transcription],
        on_progress: OnProgress,
        on_segment: OnSegment,
    ) -> Transcription:
        """Returns one transcription of all channels. Raises what `run` and the callbacks raise."""

        def run_one(channel: int) -> Transcription:
            def report(done: float, total: float | None) -> None:
                before = channel * (total or 0.0)
                on_progress((before + done) / self._count, total)

            if channel == 0:
                return run(self._first, report)
            with self._prepare(channel, report) as prepared:
                return run(prepared, report)

        try:
            merged = _merge([run_one(channel) for channel in range(self._count)])
        except TooLarge as error:
            raise self._explained(error) from None
        for segment in merged.segments:
            on_segment(segment)
        return merged

    def _explained(self, error: TooLarge) -> TooLarge:
        return TooLarge(f"{error.text} for each of {self._count} channels (split_channels)")


def _merge(found: list[Transcription]) -> Transcription:
    """One transcription of all channels, in the language of the channel with the most text."""
    segments = sorted(
        (
            replace(segment, channel=channel)
            for channel, transcription in enumerate(found)
            for segment in transcription.segments
        ),
        key=lambda segment: (segment.start, segment.channel),
    )
    return replace(
        max(found, key=lambda transcription: len(transcription.text)),
        text="".join(segment.text for segment in segments).strip(),
        audio_seconds=max(transcription.audio_seconds for transcription in found),
        segments=tuple(replace(segment, id=i) for i, segment in enumerate(segments, 1)),
        warnings=tuple(dict.fromkeys(w for transcription in found for w in transcription.warnings)),
    )
