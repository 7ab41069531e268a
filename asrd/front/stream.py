"""A stream of a Wyoming client: audio-start, audio-chunk …, audio-stop.

1. `transcribe` without audio gives the options of the next stream, and of that one only.
2. A refused event ends the stream. The rest of it is skipped, up to its audio-stop: one stream gets
   one answer, even if every chunk is wrong. A refused `transcribe` counts as such an event: the
   stream that follows must not be transcribed with default options.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from asrd.errors import Code, FieldError
from asrd.front.live.stream import LiveStream
from asrd.front.request import is_plain
from asrd.front.scheduling.actions import Failure
from asrd.front.spool import SpooledAudio
from asrd.wire import frames
from asrd.wire.client_events import AudioChunk, AudioStart, AudioStop, Transcribe
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat

STREAMED = frozenset({AudioStart.TYPE, AudioChunk.TYPE, AudioStop.TYPE})

REPLACED = Failure(Code.CANCELLED, "another stream has begun")
_NOTHING_ANNOUNCED = Transcribe(), Options()


class Recorded(NamedTuple):
    transcribe: Transcribe
    options: Options
    format: AudioFormat
    audio: SpooledAudio | LiveStream


class _Sink:
    """A sink of an event's payload that outlives the event."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self.write = write

    def close(self) -> None:
        pass


DISCARD = _Sink(lambda data: None)
NewRecording = Callable[[Transcribe, Options, AudioFormat], SpooledAudio | LiveStream]


class Stream:
    """Owns the audio until `stop` returns it."""

    def __init__(self, new_recording: NewRecording) -> None:
        self._new_recording = new_recording
        # None after a refused `transcribe`.
        self.next: tuple[Transcribe, Options] | None = _NOTHING_ANNOUNCED
        self.arriving: Recorded | None = None
        # The request of the stream that is arriving, or has just ended.
        self.current = Transcribe()
        self.skipping = False

    @property
    def is_open(self) -> bool:
        return self.arriving is not None

    @property
    def is_live(self) -> bool:
        return self.arriving is not None and isinstance(self.arriving.audio, LiveStream)

    @property
    def live_id(self) -> str | None:
        """The job id of the live stream that is open."""
        return (
            self.arriving.transcribe.job_id if self.arriving is not None and self.is_live else None
        )

    @property
    def knows_errors(self) -> bool:
        """True if a stream is open whose client does not take an error for the end of all."""
        return self.arriving is not None and not is_plain(self.arriving.transcribe)

    def sink(self) -> frames.Sink:
        """Returns the sink for a chunk's payload."""
        return DISCARD if self.arriving is None else _Sink(self.arriving.audio.write)

    def announce(self, transcribe: Transcribe, options: Options) -> None:
        # Kept until the stream begins, which may be never: without the hints, which may be long
        # and are among the options already.
        self.next = replace(transcribe, transcript_names=(), transcript_terms=()), options

    def refuse(self) -> None:
        """Skips the next stream: its `transcribe` was refused."""
        self.next = None

    def start(self, event: AudioStart) -> None:
        """Raises what `new_recording` raises; then the stream has not begun."""
        self.drop(REPLACED)
        opened = None
        if self.next is not None:
            format_ = AudioFormat("pcm_s16le", event.rate, event.channels)
            opened = Recorded(*self.next, format_, self._new_recording(*self.next, format_))
        self._begin()
        self.arriving = opened

    def _begin(self) -> None:
        self.skipping = self.next is None
        self.current, _ = self.next or _NOTHING_ANNOUNCED
        self.next = _NOTHING_ANNOUNCED

    def chunk(self, event: AudioChunk) -> None:
        """Raises FieldError, and what a live stream raises."""
        if self.arriving is None:
            self._refuse_or_skip("audio-chunk")
            return
        format_ = self.arriving.format
        if (event.rate, event.channels) != (format_.sample_rate, format_.channels):
            raise FieldError("rate", "an audio-chunk must have its audio-start's rate and channels")
        if isinstance(self.arriving.audio, LiveStream):
            self.arriving.audio.advance()

    def stop(self) -> Recorded | None:
        """Returns what was recorded, and gives its audio away; None at the end of a skipped stream.

        Raises FieldError.
        """
        recorded, self.arriving = self.arriving, None
        if recorded is None:
            self._refuse_or_skip("audio-stop")
            self.skipping = False
        return recorded

    def skip(self) -> None:
        """Skips the rest of a stream that was stopped before its audio-stop."""
        self.skipping = True

    def _refuse_or_skip(self, kind: str) -> None:
        if not self.skipping:
            raise FieldError(kind, "arrived without an audio-start")

    def accepted(self) -> None:
        """The stream that was stopped has become a request, which gets its own answer."""
        self.current = Transcribe()

    def give_up(self, kind: str, failure: Failure) -> Transcribe | None:
        """Ends the stream because an event of this kind was refused. Returns the request to be
        answered; None if the stream has had its answer."""
        if kind == AudioStart.TYPE:
            self._begin()
        transcribe, self.current = self.current, Transcribe()
        self.drop(failure)
        answered, self.skipping = self.skipping, kind != AudioStop.TYPE
        return None if answered else transcribe

    def cancel(self, job_id: str, failure: Failure) -> Transcribe | None:
        """Gives up the stream with this id, begun or only announced. Returns its request."""
        if self.arriving is not None and self.arriving.transcribe.job_id == job_id:
            return self.give_up(AudioChunk.TYPE, failure)
        if self.next is not None and self.next[0].job_id == job_id:
            transcribe, _ = self.next
            self.refuse()
            return transcribe
        return None

    def drop(self, failure: Failure) -> None:
        recorded, self.arriving = self.arriving, None
        if recorded is None:
            return
        if isinstance(recorded.audio, LiveStream):
            recorded.audio.give_up(failure)
        else:
            recorded.audio.close()
