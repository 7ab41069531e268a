"""One job between its descriptor and the model: its audio, its features, and how it may fail."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from asrd.engine.audio.reader import BLOCK_SECONDS, AudioReader, Samples
from asrd.engine.batched import Windows
from asrd.engine.combinations import WINDOW_SECONDS, is_batched
from asrd.engine.hints import Hints
from asrd.engine.interface import OnProgress
from asrd.engine.logmel import LogMel
from asrd.engine.mel import FRAMES_PER_SECOND, HOP
from asrd.engine.peak import SEARCHED_SECONDS, ReadAhead, search
from asrd.engine.vad import SpeechFilter, Vad, speech_seconds
from asrd.errors import OutOfMemory, Poisoned
from asrd.wire.fds import Closing
from asrd.wire.options import Options
from asrd.wire.records import Checkpoint, JobWarning, Segment, Word

# Log probabilities per token of real models are above -2 (-3 for sampled nonsense); a uniform guess
# among all tokens has -10.9. Broken float16 arithmetic gave -291.
_ABSURD = -10.0
# In seconds. Of shorter speech nothing may be left: a cough, a word that no model knows.
_MUCH_SPEECH = 3.0
# Five minutes, which the VAD judges in a third of a second.
_SEARCHED_BLOCKS = 300 // BLOCK_SECONDS
_GPU_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation")


class Prepared(Closing):
    """A job whose audio is open, checked and decoded up to its first window. Must be closed.

    `warnings` are those of the answer; complete once the job has run. `absurd` is true if no sound
    model gives a segment such a probability. `reopen` returns the recording from its start. With
    `resume`, all before that is read only.
    """

    def __init__(
        self,
        recording: AudioReader,
        options: Options,
        arguments: dict[str, Any],
        hints: Hints,
        on_progress: OnProgress,
        filters: Any,
        vad: Vad | None,
        reopen: Callable[[], AudioReader],
        resume: Checkpoint | None = None,
    ) -> None:
        self.recording = recording
        self.options = options
        self.warnings: list[JobWarning] = recording.warnings
        # faster-whisper only puts the prompt's tokens before the text; see asrd.engine.job_model.
        self.arguments = {**arguments, "initial_prompt": list(hints.initial_prompt) or None}
        self.hints = hints
        self.resume = resume
        self.on_progress = on_progress
        self.absurd = False
        self._reopen = reopen
        self._filters = filters
        self._vad = vad
        self._reading = self._read(recording)
        self._speech = None if vad is None else SpeechFilter(self._reading, vad)
        self._blocks = ReadAhead(recording, self._speech or self._reading)
        # faster-whisper detects the language from here on.
        self.first_frame = int((self.options.clip_timestamps or [0])[0] * FRAMES_PER_SECOND)
        self._done, log_peak = 0.0, None
        if resume is not None:
            self.arguments |= _resumed(resume, arguments)
            self.first_frame = resume.frame
            self._done, log_peak = resume.seconds, resume.peak
        # The segments of earlier attempts, and the start of the last window.
        self._before = 0 if resume is None else resume.segments
        self._frame = 0
        self.features = LogMel(self._blocks, filters, self._on_window, self.first_frame, log_peak)
        self.windows = None
        if self._speech is not None and is_batched(self.options):
            seconds = self.options.chunk_length or WINDOW_SECONDS
            # Batches have no clips.
            self.windows = Windows(self._speech, seconds, self.first_frame)
        self.callback_error: BaseException | None = None

    def close(self) -> None:
        self.recording.close()
        # These hold this object through their callbacks, and minutes of audio: a cycle that the
        # garbage collector would free much later.
        self.callback_error = None
        del self.features, self.windows, self._blocks, self._speech, self._reading

    def read_ahead(self) -> None:
        """Makes the first window ready, and finds the loudest place (asrd.engine.peak)."""
        if self.windows is not None:
            self.windows.read_ahead()
        elif self._needs_length():
            self.features.read_all()
        elif self.resume is not None:
            self.features.read_ahead()
        elif self.recording.plain and self._vad is None:
            if self.features.read_ahead():
                self._search_again(0)
        else:
            held, count = self._blocks.hold()
            if self.features.read_ahead():
                self._raise_peak(search(held, count, self._filters, self.features.peak))
                if self.recording.plain:
                    self._search_again(max(0, count - 1))

    def _needs_length(self) -> bool:
        """True if faster-whisper looks how far away the end is."""
        options = self.options
        return bool(options.word_timestamps) and options.hallucination_silence_threshold is not None

    def _search_again(self, first: int) -> None:
        """Searches a second reading of the recording, from block `first` on."""
        with self.recording.again() as again:
            blocks = itertools.islice(self._read(again), first, None)
            count = SEARCHED_SECONDS // BLOCK_SECONDS - first
            known = self.features.peak
            self._raise_peak(search(blocks, count, self._filters, known, self._vad))

    def _raise_peak(self, found: float) -> None:
        if found > self.features.peak:
            self.features.raise_peak(found)

    def read_rest(self) -> None:
        """Reads what no window needed, so that the recording's length and faults are known."""
        for _ in self._reading:
            pass

    def report_window(self, sample: int) -> None:
        """Reports that windows up to `sample` of the speech are done."""
        self._on_window(sample // HOP)

    def to_segment(self, found: Any) -> Segment:
        """Returns faster-whisper's segment as plain data, at its place in the recording."""
        # Also for NaN.
        self.absurd |= not found.avg_logprob > _ABSURD
        if self._speech is not None:
            self._speech.map.restore(found)
        for cue in (found, *(found.words or ())):
            cue.start, cue.end = self.recording.outside_gaps(cue.start, cue.end)
        found.id += self._before
        # A window is only transcribed once the second after it has been read. So this length is
        # past all times of the window, or it is the whole recording's.
        return make_segment(found, self.recording.seconds, bool(self.options.include_tokens))

    def checkpoint(
        self,
        segments: int,
        tokens: list[int],
        language: tuple[str, float] | None,
        last_speech: float,
    ) -> Checkpoint:
        """Returns the state before the window that was reported last; `segments` are those of this
        attempt, the others as in OnWindow."""
        code, probability = self.language(language) if language else (None, 0.0)
        return Checkpoint(
            frame=self._frame,
            seconds=self._done,
            segments=self._before + segments,
            tokens=tuple(tokens),
            language=code,
            language_probability=finite(probability),
            peak=finite(self.features.log_peak),
            last_speech=finite(last_speech),
            options=self.options,
        )

    def language(self, found: tuple[str, float]) -> tuple[str, float]:
        """Returns the language and its probability: `found`, unless an earlier attempt knew it."""
        if self.resume is None or self.resume.language is None:
            return found
        return self.resume.language, self.resume.language_probability

    def has_speech(self, vad_session: Any) -> bool:
        """Returns True if the VAD hears so much speech that a transcript can't be empty. Reads the
        recording again, at most a few minutes of it."""
        with self._reopen() as again:
            blocks = itertools.islice(self._read(again), _SEARCHED_BLOCKS)
            return speech_seconds(blocks, vad_session, _MUCH_SPEECH) >= _MUCH_SPEECH

    def call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            callback(*args)
        except BaseException as error:
            self.callback_error = error
            raise

    def translate_engine_errors(self) -> "_TranslatedErrors":
        """A context in which the libraries' errors become asrd's; those of callbacks pass."""
        return _TranslatedErrors(self)

    def _read(self, recording: AudioReader) -> Iterator[Samples]:
        for block in recording:
            # Long silence makes no window, but must show progress and must be cancellable.
            self.report()
            yield block

    def _on_window(self, frame: int) -> None:
        seconds = frame / FRAMES_PER_SECOND
        self._frame = frame
        self._done = seconds if self._speech is None else self._speech.map.original(seconds)
        self.report()

    def report(self) -> None:
        """Reports that the job is alive; raises what ends it."""
        self.call(self.on_progress, self._done, self.recording.total_seconds)


def _resumed(resume: Checkpoint, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments with which faster-whisper goes on from a checkpoint."""
    # Pairs of start and end; the last end may be absent.
    clips = list(arguments.get("clip_timestamps", [0.0]))
    while len(clips) > 1 and round(clips[1] * FRAMES_PER_SECOND) <= resume.frame:
        del clips[:2]
    return {
        "initial_prompt": list(resume.tokens) or None,
        "language": resume.language or arguments.get("language"),
        "clip_timestamps": [resume.frame / FRAMES_PER_SECOND, *clips[1:]],
    }


class _TranslatedErrors:
    """A class, because contextlib's generators keep a cycle with the traceback of an error that
    passes through them (Python 3.12), and so everything that the job holds."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and error is not self._prepared.callback_error:
            _raise_translated(error)


def _raise_translated(error: BaseException) -> None:
    """Raises what a library's error means for the job; returns if the error is unknown.

    CTranslate2 throws plain RuntimeErrors, so their words decide (its src/cuda/utils.h:
    "CUDA failed with error ...", "cuBLAS failed with status ..."). Thrust's begin with
    "cudaError..."; its std::bad_alloc, here a MemoryError, is also used for the GPU's memory.
    """
    if type(error) not in (MemoryError, RuntimeError):
        return
    text = str(error)
    # A failed allocation leaves the device as it was; every other error stays.
    if any(words in text for words in _GPU_MEMORY):
        raise OutOfMemory(f"the GPU ran out of memory for this job: {text}") from error
    if isinstance(error, MemoryError) or "failed to allocate" in text:
        raise OutOfMemory("the worker ran out of memory for this job") from error
    if any(name in text.lower() for name in ("cuda", "cublas", "cudnn", "nccl")):
        raise Poisoned(text) from error


def make_segment(found: Any, seconds: float, include_tokens: bool = False) -> Segment:
    """Returns faster-whisper's segment as plain data; it contains its words, and no time is after
    `seconds`."""
    words = None
    if found.words is not None:
        words = tuple(
            Word(*_times(word, seconds), word.word, finite(word.probability))
            for word in found.words
        )
    start, end = _times(found, seconds)
    if words:
        # faster-whisper lets some words begin before their segments, or end after them.
        start, end = min(start, words[0].start), max(end, words[-1].end)
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
        seek=found.seek if include_tokens else None,
        tokens=tuple(found.tokens) if include_tokens else None,
    )


def _times(cue: Any, seconds: float) -> tuple[float, float]:
    """Start and end with millisecond precision, in order, and at most `seconds`: Whisper pads a
    short recording to 30 s, and may put a time into the padding."""
    # Rounded down, so that the last time is not past the end.
    last = math.floor(seconds * 1000) / 1000
    start, end = (min(max(round(finite(value), 3), 0.0), last) for value in (cue.start, cue.end))
    return min(start, end), end


def finite(value: float) -> float:
    """Returns 0 for NaN and infinity: sums may overflow in half precision, and JSON has neither."""
    return float(value) if math.isfinite(value) else 0.0
