"""One job between its descriptor and the model: its audio, its features, and how it may fail."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from asrd.engine.audio.reader import BLOCK_SECONDS, AudioReader, Samples
from asrd.engine.hints import Hints
from asrd.engine.interface import OnProgress
from asrd.engine.logmel import LogMel
from asrd.engine.mel import FRAMES_PER_SECOND
from asrd.engine.peak import SEARCHED_SECONDS, SPEECH_SECONDS, ReadAhead, search, search_speech
from asrd.engine.vad import SpeechFilter
from asrd.errors import OutOfMemory, Poisoned
from asrd.wire.fds import Closing
from asrd.wire.records import JobWarning, Segment, Word

_GPU_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation")


class Prepared(Closing):
    """A job that is open, checked and decoded as far as its first window; close it.

    `warnings` is what its client should know; complete once the job has run.
    """

    def __init__(
        self,
        recording: AudioReader,
        arguments: dict[str, Any],
        hints: Hints,
        on_progress: OnProgress,
        filters: Any,
        vad_session: Any | None,
    ) -> None:
        self.recording = recording
        self.warnings: list[JobWarning] = recording.warnings
        # faster-whisper only puts the prompt's tokens before the text; see asrd.engine.hints.
        self.arguments = {**arguments, "initial_prompt": list(hints.initial_prompt) or None}
        self.hints = hints
        self.on_progress = on_progress
        self._filters = filters
        self._vad_session = vad_session
        self._blocks = ReadAhead(recording, self._read(recording))
        self._speech = None if vad_session is None else SpeechFilter(self._blocks, vad_session)
        self.features = LogMel(self._speech or self._blocks, filters, self._on_window)
        self._done = 0.0
        self._raised: BaseException | None = None

    def close(self) -> None:
        self.recording.close()
        # They hold this one by its callbacks, and minutes of audio: see Recording.close.
        self._raised = None
        del self.features, self._speech, self._blocks

    def read_ahead(self) -> None:
        """Make the first window ready, and find the loudest place (asrd.engine.peak)."""
        if self.recording.plain:
            if self._first_window():
                with self.recording.again() as again:
                    self._search(self._read(again), SEARCHED_SECONDS // BLOCK_SECONDS)
        else:
            held, count = self._blocks.hold()
            if self._first_window():
                self._search(held, count)

    def _first_window(self) -> bool:
        """Whether the recording goes on behind what was read for it."""
        goes_on = self.features.read_ahead()
        if self._vad_session is not None:
            while goes_on and self._blocks.given * BLOCK_SECONDS < SPEECH_SECONDS:
                goes_on = self.features.read_block()
        return goes_on

    def _search(self, blocks: Iterable[Samples], count: int) -> None:
        known = self.features.peak
        if self._vad_session is None:
            found = search(blocks, count, self._filters, known)
        else:
            found = search_speech(blocks, count, self._filters, known, self._vad_session)
        if found > known:
            self.features.hear_of(found)

    def to_segment(self, found: Any) -> Segment:
        """faster-whisper's segment as plain data, at its place in the recording."""
        if self._speech is not None:
            self._speech.map.restore(found)
        for heard in (found, *(found.words or ())):
            heard.start, heard.end = self.recording.outside_gaps(heard.start, heard.end)
        # A window is only transcribed when a second more has been read: this is past all its
        # times, or the end of the recording.
        return _segment(found, self.recording.seconds)

    def call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except BaseException as error:
            self._raised = error
            raise

    def honest_errors(self) -> "_HonestErrors":
        """Tell the engine's errors apart; a callback's own pass."""
        return _HonestErrors(self)

    def is_callbacks(self, error: BaseException) -> bool:
        return error is self._raised

    def _read(self, recording: AudioReader) -> Iterator[Samples]:
        for block in recording:
            # Long silence makes no window: this is a sign of life, and a place to stop.
            self._report()
            yield block

    def _on_window(self, frame: int) -> None:
        seconds = frame / FRAMES_PER_SECOND
        self._done = seconds if self._speech is None else self._speech.map.original(seconds)
        self._report()

    def _report(self) -> None:
        self.call(self.on_progress, self._done, self.recording.total_seconds)


class _HonestErrors:
    """A class, since the traceback of an error that goes through contextlib's generators holds
    itself (Python 3.12), and so all that the job held."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or self._prepared.is_callbacks(error):
            return
        told = _translate(error)
        try:
            if told is not None:
                raise told from error
        finally:
            # Its own traceback holds this frame.
            del told


def _translate(error: Exception) -> Exception | None:
    """What an error of the libraries means for the job; None if nobody knows.

    CTranslate2 throws plain RuntimeErrors, so their words decide (its src/cuda/utils.h:
    "CUDA failed with error ...", "cuBLAS failed with status ..."; thrust says "cudaError...", and
    throws a std::bad_alloc, here a MemoryError, for the GPU's memory too).
    """
    if type(error) not in (MemoryError, RuntimeError):
        return None
    text = str(error)
    # An allocation that failed leaves the device as it was; every other error stays.
    if any(words in text for words in _GPU_MEMORY):
        return OutOfMemory(f"the GPU ran out of memory for this job: {text}")
    if isinstance(error, MemoryError) or "failed to allocate" in text:
        return OutOfMemory("the worker ran out of memory for this job")
    if any(name in text.lower() for name in ("cuda", "cublas", "cudnn", "nccl")):
        return Poisoned(text)
    return None


def _segment(found: Any, read_seconds: float) -> Segment:
    words = None
    if found.words is not None:
        words = tuple(
            Word(*_times(word, read_seconds), word.word, finite(word.probability))
            for word in found.words
        )
    start, end = _times(found, read_seconds)
    return Segment(
        id=found.id,
        start=start,
        end=end,
        text=found.text,
        avg_logprob=finite(found.avg_logprob),
        no_speech_prob=finite(found.no_speech_prob),
        temperature=finite(found.temperature),
        compression_ratio=finite(found.compression_ratio),
        words=words,
    )


def _times(found: Any, read_seconds: float) -> tuple[float, float]:
    """Start and end within the recording, and in this order: Whisper pads a short recording to
    30 s, and may put a time into the padding."""
    # Rounded down, so that the last time is not past the end.
    last = math.floor(read_seconds * 1000) / 1000
    end = min(max(_seconds(found.end), 0.0), last)
    return min(max(_seconds(found.start), 0.0), end), end


def _seconds(value: float) -> float:
    return round(finite(value), 3)


def finite(value: float) -> float:
    """0 for what is no number: sums may overflow in half precision, and JSON has no NaN."""
    return float(value) if math.isfinite(value) else 0.0
