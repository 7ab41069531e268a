"""Windows of one recording decoded at once: faster-whisper's BatchedInferencePipeline.

The pipeline takes a whole recording. Here it gets a few windows at a time, as the recording is
read. A window joins the VAD's chunks of speech, up to `chunk_length` seconds. Windows do not depend
on each other, so texts are those of the whole (tests/real/test_batched.py).

A job can't be cancelled within a call, whose memory grows with its windows and their beams. So
`windows_at_once` bounds them, whatever `batch_size` a request has.
"""

import itertools
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.vad import VadOptions

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.combinations import WINDOW_SECONDS
from asrd.engine.mel import FRAMES_PER_SECOND, HOP, NO_SAMPLES
from asrd.engine.spoken import Detecting, OnWindow
from asrd.engine.vad import SpeechFilter
from asrd.wire.records import Checkpoint

# The pipeline's own default; the VAD's is 2000.
_MIN_SILENCE_MS = 160
# The decoder holds 448, at most four of which come before the text.
_MOST_TOKENS = 444
# `batch_size_max` counts windows with so many beams, the default.
_BEAMS = 5


@dataclass(frozen=True, slots=True)
class Window:
    """Speech to be decoded at once; `first` is the number of its first sample in all speech."""

    samples: Samples
    first: int


class Windows:
    """The windows of a recording, of at most `seconds`, in order, from `first_frame` on."""

    def __init__(self, speech: SpeechFilter, seconds: int, first_frame: int = 0) -> None:
        self._speech = speech
        self._longest = seconds * RATE
        self._left: Iterator[Window] = itertools.dropwhile(
            lambda each: each.first // HOP < first_frame, self._windows()
        )

    def read_ahead(self) -> None:
        """Reads the recording up to the first window's end."""
        self._left = itertools.chain(self.take(1), self._left)

    def take(self, count: int) -> list[Window]:
        """Returns the next windows, at most `count`; none at the end."""
        return list(itertools.islice(self._left, count))

    def _windows(self) -> Iterator[Window]:
        # As faster-whisper's `collect_chunks`.
        parts: list[Samples] = []
        first = length = 0
        for chunk in self._chunks():
            if parts and length + len(chunk) > self._longest:
                yield Window(np.concatenate(parts), first)
                first, length, parts = first + length, 0, []
            parts.append(chunk)
            length += len(chunk)
        if parts:
            yield Window(np.concatenate(parts), first)

    def _chunks(self) -> Iterator[Samples]:
        ends = self._speech.map.chunk_end_sample
        held, first, done = NO_SAMPLES, 0, 0
        for part in self._speech:
            held = np.concatenate((held, part))
            while done < len(ends) and ends[done] != sys.maxsize:
                yield held[: ends[done] - first]
                held, first, done = held[ends[done] - first :], ends[done], done + 1


def vad_options(given: dict[str, Any], chunk_length: int | None) -> VadOptions:
    """Returns the VAD's options for windows of `chunk_length` seconds."""
    longest = chunk_length or WINDOW_SECONDS
    longest_speech = min(longest, given.get("max_speech_duration_s", longest))
    merged = {"min_silence_duration_ms": _MIN_SILENCE_MS, **given}
    return VadOptions(**{**merged, "max_speech_duration_s": longest_speech})


def windows_at_once(batch_size: int, most: int, beams: int) -> int:
    """Returns how many windows one call decodes: at most `most`, fewer with more than 5 beams."""
    return max(1, min(batch_size, most, most * _BEAMS // beams))


class BatchedModel:
    """A model for one job that decodes `at_once` windows in one call.

    `batch_size` is the number that the job asked for: it bounds the windows in which the language
    is detected. `on_batch(sample)` is called before each call with its first sample, and `on_step`
    before each call of the weights; an error that they raise ends the job. `language` is the
    detected one and its probability, known once the job has run. `asked` is true once there was a
    window, so that the weights decided what its text is. `on_window`, before each call but the
    first, and `resume`: see JobModel; no text prompts these windows.
    """

    def __init__(
        self,
        model: Any,
        windows: Windows,
        batch_size: int,
        at_once: int,
        allowed: tuple[str, ...] | None,
        on_batch: Callable[[int], None],
        on_step: Callable[[], None],
        on_window: OnWindow,
        resume: Checkpoint | None,
    ) -> None:
        shared = WhisperModel.__new__(WhisperModel)
        shared.__dict__.update(vars(model))
        shared.model = Detecting(model.model, allowed, on_step)
        self._pipeline = _Pipeline(shared, self._begin)
        self._pipeline.last_speech = 0.0 if resume is None else resume.last_speech
        self._on_batch, self._on_window = on_batch, on_window
        self._windows = windows
        self._batch_size = batch_size
        self._at_once = at_once
        self.language = ("en", 0.0 if model.model.is_multilingual else 1.0)
        self.asked = self._begun = False

    def _begin(self, sample: int) -> None:
        self._on_batch(sample)
        if self._begun:
            self._on_window([], self.language, self._pipeline.last_speech)
        self._begun = True

    def segments(self, arguments: dict[str, Any]) -> Generator[tuple[Any, str | None], None, None]:
        """Yields the segments, each with its language if that is detected for each window."""
        arguments = dict(arguments)
        if arguments.get("max_new_tokens"):
            arguments["max_new_tokens"] = min(arguments["max_new_tokens"], _MOST_TOKENS)
        if language := arguments.get("language"):
            self.language = (language, 1.0)
        count = 0
        while windows := self._next(arguments):
            self.asked = True
            for segment in self._decode(windows, arguments):
                if segment.text.strip():
                    count += 1
                    segment.id = count
                    yield segment, self._pipeline.languages.get(segment.seek)

    def _next(self, arguments: dict[str, Any]) -> list[Window]:
        """Returns the next windows: those of one call, and at first all in which the language is to
        be detected, so that it does not depend on `at_once`."""
        windows = self._windows.take(self._at_once)
        frames = self._frames_for_detection(arguments)
        while len(windows) < self._batch_size and _frames(windows) < frames:
            more = self._windows.take(1)
            if not more:
                break
            windows += more
        return windows

    def _frames_for_detection(self, arguments: dict[str, Any]) -> int:
        if arguments.get("language") or not self._pipeline.model.model.is_multilingual:
            return 0
        segments: int = arguments.get("language_detection_segments", 1)
        return segments * WINDOW_SECONDS * FRAMES_PER_SECOND

    def _decode(self, windows: list[Window], arguments: dict[str, Any]) -> Iterator[Any]:
        self._pipeline.first = first = windows[0].first
        # Half a sample more, because the pipeline rounds down.
        seconds = [(each.first - first + 0.5) / RATE for each in windows]
        samples = np.concatenate([each.samples for each in windows])
        ends = [*seconds[1:], (len(samples) + 0.5) / RATE]
        found, info = self._pipeline.transcribe(
            samples,
            **{
                **arguments,
                "batch_size": self._at_once,
                "clip_timestamps": [
                    {"start": start, "end": end} for start, end in zip(seconds, ends, strict=True)
                ],
                "initial_prompt": None,
                # A new list for each call: faster-whisper extends it.
                "suppress_tokens": list(arguments["suppress_tokens"]),
            },
        )
        if arguments.get("language") is None:
            self.language = (info.language, info.language_probability)
            arguments["language"] = info.language
        yield from found


def _frames(windows: list[Window]) -> int:
    """Returns how many frames of features the windows have."""
    return sum(len(each.samples) // HOP for each in windows)


class _Pipeline(BatchedInferencePipeline):  # type: ignore[misc]  # faster-whisper has no types
    """The pipeline for a part of the speech that begins at sample `first`.

    `languages` has those that were detected for single windows, by the frames at which they begin.
    """

    def __init__(self, model: Any, on_batch: Callable[[int], None]) -> None:
        super().__init__(model)
        self._on_batch = on_batch
        self.first = 0
        self.languages: dict[int, str] = {}
        self.last_speech = 0.0

    def forward(self, features: Any, tokenizer: Any, chunks_metadata: Any, options: Any) -> Any:
        self._on_batch(self.first + chunks_metadata[0]["segments"][0]["start"])
        for chunk in chunks_metadata:
            chunk["offset"] = (self.first + chunk["segments"][0]["start"]) / RATE
        # faster-whisper forgets it after each call.
        self.last_speech_timestamp = self.last_speech
        found = super().forward(features, tokenizer, chunks_metadata, options)
        self.last_speech = self.last_speech_timestamp
        if options.multilingual:
            frames = [
                int(each["offset"] * self.model.frames_per_second) for each in chunks_metadata
            ]
            self.languages = dict(zip(frames, self.model.model.found, strict=True))
        return found
