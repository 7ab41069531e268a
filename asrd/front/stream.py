"""The recording that a Wyoming client sends in chunks: audio-start, audio-chunk …, audio-stop.

1. `transcribe` without audio says what is asked of the next recording, and is used up by it.
2. A refused event ends the recording; what still comes of it is skipped, up to its audio-stop: one
   recording, one answer, also where each of its chunks is wrong. A refused `transcribe` is such an
   event: the recording that follows must not be transcribed as if nothing had been asked.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from asrd.errors import FieldError
from asrd.front.spool import SpooledAudio
from asrd.wire import frames
from asrd.wire.client_events import AudioChunk, AudioStart, AudioStop, Transcribe
from asrd.wire.records import AudioFormat, Options

STREAMED = frozenset({AudioStart.TYPE, AudioChunk.TYPE, AudioStop.TYPE})

_NOTHING_ASKED = Transcribe(), Options()


@dataclass(slots=True)
class Recorded:
    asked: Transcribe
    options: Options
    format: AudioFormat
    recording: SpooledAudio


class _Chunk:
    """The payload of an audio-chunk: goes to the recording, which outlives the event."""

    def __init__(self, recording: SpooledAudio) -> None:
        self.write = recording.write

    def close(self) -> None:
        pass


class Stream:
    """Owns the recording until `stop` gives it away."""

    def __init__(self, new_recording: Callable[[], SpooledAudio]) -> None:
        self._new_recording = new_recording
        # None: that was refused.
        self._next: tuple[Transcribe, Options] | None = _NOTHING_ASKED
        self._open: Recorded | None = None
        # Of the recording whose events are being handled, be it open or just over.
        self._asked = Transcribe()
        self._skipping = False

    @property
    def is_open(self) -> bool:
        return self._open is not None

    def sink(self) -> frames.Sink | None:
        """Where a chunk's payload goes."""
        return None if self._open is None else _Chunk(self._open.recording)

    def ask(self, asked: Transcribe, options: Options) -> None:
        # Until the recording comes, which may be never: without the hints, which may be long and
        # are among the options.
        self._next = replace(asked, transcript_names=(), transcript_terms=()), options

    def refuse(self) -> None:
        """What was asked of the next recording can't be had."""
        self._next = None

    def start(self, event: AudioStart) -> None:
        self.drop()
        asked, options = self._begin()
        if not self._skipping:
            format_ = AudioFormat("pcm_s16le", event.rate, event.channels)
            self._open = Recorded(asked, options, format_, self._new_recording())

    def _begin(self) -> tuple[Transcribe, Options]:
        self._skipping = self._next is None
        self._asked, options = self._next or _NOTHING_ASKED
        self._next = _NOTHING_ASKED
        return self._asked, options

    def chunk(self, event: AudioChunk) -> None:
        """Raises FieldError."""
        if self._open is None:
            self._refuse_or_skip("audio-chunk")
            return
        format_ = self._open.format
        if (event.rate, event.channels) != (format_.sample_rate, format_.channels):
            raise FieldError("rate", "an audio-chunk must have its audio-start's rate and channels")

    def stop(self) -> Recorded | None:
        """The recording, which is the caller's from here on; None at the end of a refused one.

        Raises FieldError.
        """
        recorded, self._open = self._open, None
        if recorded is None:
            self._refuse_or_skip("audio-stop")
            self._skipping = False
        return recorded

    def _refuse_or_skip(self, kind: str) -> None:
        if not self._skipping:
            raise FieldError(kind, "came without an audio-start")

    def accepted(self) -> None:
        """What `stop` gave away has become a job, which has answers of its own."""
        self._asked = Transcribe()

    def give_up(self, kind: str) -> Transcribe | None:
        """An event of this kind was refused: returns what was asked, to answer it; None if the
        recording has had its answer."""
        if kind == AudioStart.TYPE:
            self._begin()
        asked, self._asked = self._asked, Transcribe()
        self.drop()
        answered, self._skipping = self._skipping, kind != AudioStop.TYPE
        return None if answered else asked

    def cancel(self, job_id: str) -> Transcribe | None:
        """Give up the recording, begun or only asked for, if it is of this id: what was asked."""
        if self._open is not None and self._open.asked.job_id == job_id:
            return self.give_up(AudioChunk.TYPE)
        if self._next is not None and self._next[0].job_id == job_id:
            asked, _ = self._next
            self.refuse()
            return asked
        return None

    def drop(self) -> None:
        if self._open is not None:
            self._open.recording.close()
            self._open = None
