"""Silence taken out of a recording as it is read, and times put back into the recording.

The rules are those of faster-whisper's `get_speech_timestamps`, with its VadOptions and its Silero
model. But faster-whisper needs the whole recording. Here one pass over the blocks carries the
model's state along, and finds the same chunks of speech:

1. Each 32 ms get a probability of speech. Speech begins at `threshold` or more.
2. It ends where the probability falls below `neg_threshold` and does not reach `threshold` again
   for `min_silence_duration_ms`.
3. Speech of up to `min_speech_duration_ms` is dropped. Speech that lasts longer than
   `max_speech_duration_s` is split, in its last silence of 98 ms if it has one.
4. `speech_pad_ms` on both sides belong to it. Two chunks that are closer share the silence.

Speech is returned as soon as nothing that follows can exclude it. So only a `max_speech_duration_s`
(from its last silence on), the shortest speech and the padding are kept.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from faster_whisper.vad import SpeechTimestampsMap, VadOptions

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.mel import NO_SAMPLES

_STEP = 512
_CONTEXT = 64
# A silence in which speech that is too long may be split is longer.
_SPLIT_SILENCE = RATE * 98 / 1000


@dataclass(frozen=True)
class Vad:
    """The onnxruntime session of faster-whisper's Silero model, and the options to use."""

    session: Any
    options: VadOptions = field(default_factory=VadOptions)


class SpeechMap(SpeechTimestampsMap):  # type: ignore[misc]  # faster-whisper has no types
    """The places of the chunks of speech in the recording.

    faster-whisper's map takes a complete list of chunks. This one grows, and its last chunk may be
    open.
    """

    def __init__(self) -> None:
        super().__init__([], RATE)
        self._silent = self._last_end = 0

    def open_chunk(self, start: int) -> None:
        """Adds a chunk that begins at sample `start` of the recording."""
        self._silent += start - self._last_end
        self.total_silence_before.append(self._silent / RATE)
        self.chunk_end_sample.append(sys.maxsize)

    def close_chunk(self, end: int) -> None:
        self._last_end = end
        self.chunk_end_sample[-1] = end - self._silent

    def chunks(self) -> Iterator[tuple[float, float]]:
        """Yields the start and the end of each closed chunk, in seconds of the recording."""
        begin = 0
        for silence, end in zip(self.total_silence_before, self.chunk_end_sample, strict=True):
            yield begin / RATE + silence, end / RATE + silence
            begin = end

    def original(self, seconds: float) -> float:
        """Returns the time in the recording for a time in the speech alone."""
        return float(self.get_original_time(seconds)) if self.total_silence_before else seconds

    def restore(self, segment: Any) -> None:
        """Moves a faster-whisper Segment of the speech alone, and its words, to the recording's
        times, as faster-whisper's `restore_speech_timestamps` does."""
        for word in segment.words or ():
            # By its middle, so that both its ends are in the same chunk.
            chunk = self.get_chunk_index((word.start + word.end) / 2)
            word.start = self.get_original_time(word.start, chunk)
            word.end = self.get_original_time(word.end, chunk)
        if segment.words:
            segment.start, segment.end = segment.words[0].start, segment.words[-1].end
        else:
            segment.start = self.get_original_time(segment.start)
            segment.end = self.get_original_time(segment.end, is_end=True)


class SpeechFilter:
    """An iterator over the speech in `blocks`: one array for each block, empty in silence, and one
    more at the end. `map` has the places of all speech returned so far."""

    def __init__(self, blocks: Iterable[Samples], vad: Vad) -> None:
        self.map = SpeechMap()
        self._blocks = blocks
        self._probabilities = _Silero(vad.session)
        self._detector = SpeechDetector(vad.options)
        self._pad: int = RATE * vad.options.speech_pad_ms // 1000
        # The samples that are neither returned nor dropped yet; the first is number `_base`.
        self._held = NO_SAMPLES
        self._base = 0
        # The sample at which the next 32 ms to be judged begin.
        self._judged = 0
        # True if the map's last chunk is the detector's unfinished one; else the end of the map's
        # last chunk, without padding, until its padding is known.
        self._open = False
        self._ended_at: int | None = None

    def __iter__(self) -> Iterator[Samples]:
        for block in self._blocks:
            self._held = np.concatenate((self._held, block))
            whole = (self._end - self._judged) // _STEP * _STEP
            speech = [*self._judge(self._unjudged()[:whole]), *self._release()]
            yield np.concatenate((NO_SAMPLES, *speech))
        yield np.concatenate((NO_SAMPLES, *self._finish()))

    @property
    def _end(self) -> int:
        return self._base + len(self._held)

    def _unjudged(self) -> Samples:
        return self._held[self._judged - self._base :]

    def _judge(self, samples: Samples) -> Iterator[Samples]:
        for probability in self._probabilities(samples):
            for start, end in self._detector.step(self._judged, probability):
                yield from self._add(start, end)
            self._judged += _STEP

    def _add(self, start: int, end: int) -> Iterator[Samples]:
        """Takes a finished chunk, without padding."""
        if not self._open:
            yield from self._begin(start)
        self._open, self._ended_at = False, end

    def _begin(self, start: int) -> Iterator[Samples]:
        """Opens a chunk that will not be dropped, which decides the padding before it."""
        self._open = True
        padding = self._pad
        if self._ended_at is not None:
            padding = self._padding(start - self._ended_at)
            yield from self._close(self._ended_at + padding)
        start = max(0, start - padding)
        self._take(start)
        self.map.open_chunk(start)

    def _padding(self, silence: int) -> int:
        """Returns the padding on each side of a silence between two chunks."""
        return min(self._pad, silence // 2)

    def _close(self, end: int) -> Iterator[Samples]:
        self._ended_at = None
        self.map.close_chunk(end)
        yield self._take(end)

    def _release(self) -> Iterator[Samples]:
        """Yields the samples that are speech no matter what follows, and drops those that are not.
        In silence, keeps the padding of a chunk that may begin."""
        start = self._detector.start
        if not self._open and start is not None and self._detector.is_certain(self._judged):
            yield from self._begin(start)
        if self._open:
            end, following = self._detector.earliest_end(self._judged)
            yield self._take(end + self._padding(following - end))
            return
        # No other chunk begins before this.
        following = self._judged if start is None else start
        if self._ended_at is not None:
            padding = self._padding(following - self._ended_at)
            if padding < self._pad:
                yield self._take(self._ended_at + padding)
                return
            yield from self._close(self._ended_at + padding)
        self._take(following - self._pad)

    def _finish(self) -> Iterator[Samples]:
        end = self._end
        # faster-whisper fills up the last step with zeros, and blanks its end.
        last = np.pad(self._unjudged(), (0, _STEP - (end - self._judged)))
        last[-_CONTEXT:] = 0
        yield from self._judge(last)
        start = self._detector.start
        if start is not None and self._detector.is_long_enough(end - start):
            yield from self._add(start, end)
        if self._ended_at is not None:
            yield from self._close(min(end, self._ended_at + self._pad))

    def _take(self, end: int) -> Samples:
        count = max(0, end - self._base)
        taken, self._held = self._held[:count], self._held[count:]
        self._base += len(taken)
        return taken


def speech_seconds(blocks: Iterable[Samples], session: Any, enough: float) -> float:
    """Returns the seconds in which there is speech. Reads no further than to `enough` of it."""
    probabilities, rest, found = _Silero(session), NO_SAMPLES, 0.0
    for block in blocks:
        samples = np.concatenate((rest, block))
        whole = len(samples) // _STEP * _STEP
        rest = samples[whole:]
        judged = probabilities(samples[:whole])
        found += sum(each >= VadOptions.threshold for each in judged) * _STEP / RATE
        if found >= enough:
            break
    return found


class SpeechDetector:
    """The chunks of speech in a row of probabilities, without padding, as `get_speech_timestamps`
    finds them. All positions are samples.

    `start` is the start of an unfinished chunk, None in silence.
    """

    def __init__(self, options: VadOptions) -> None:
        self._speech, self._silence = options.threshold, options.neg_threshold
        if self._silence is None:
            self._silence = max(options.threshold - 0.15, 0.01)
        self._min_speech: float = RATE * options.min_speech_duration_ms / 1000
        self._min_silence = RATE * options.min_silence_duration_ms / 1000
        padding = 2 * RATE * options.speech_pad_ms / 1000
        self._max_speech = RATE * options.max_speech_duration_s - _STEP - padding
        self.start: int | None = None
        # The start of the current silence, and of the last one that is long enough for a split,
        # and where speech went on after that; 0: none.
        self._silent_since = self._split = self._resumed = 0

    def step(self, here: int, probability: float) -> Iterator[tuple[int, int]]:
        """Takes the probability of the 512 samples from `here` on; yields the start and the end of
        each chunk that is finished by it."""
        if probability >= self._speech:
            if self._silent_since:
                self._silent_since = 0
                if self._resumed < self._split:
                    self._resumed = here
            if self.start is None:
                self.start = here
                return
        if self.start is not None and here - self.start > self._max_speech:
            if not self._split:
                yield self._finish(here)
                return
            resumed = self._resumed if self._resumed >= self._split else None
            yield self._finish(self._split)
            self.start = resumed
        if self.start is not None and probability < self._silence:
            self._silent_since = self._silent_since or here
            silence = here - self._silent_since
            if silence > _SPLIT_SILENCE:
                self._split = self._silent_since
            if silence >= self._min_silence:
                start, end = self._finish(self._silent_since)
                if self.is_long_enough(end - start):
                    yield start, end

    def is_long_enough(self, length: int) -> bool:
        return length > self._min_speech

    def is_certain(self, judged: int) -> bool:
        """True if the unfinished chunk will not be dropped, after steps up to `judged`."""
        return self.start is not None and self.is_long_enough(
            (self._silent_since or judged) - self.start
        )

    def earliest_end(self, judged: int) -> tuple[int, int]:
        """Returns the earliest possible end of the unfinished chunk, and the earliest start of the
        next one if it ends there."""
        if self._split and math.isfinite(self._max_speech):
            return self._split, self._resumed if self._resumed >= self._split else judged
        return self._silent_since or judged, judged

    def _finish(self, end: int) -> tuple[int, int]:
        start = self.start or 0
        self.start = None
        self._silent_since = self._split = self._resumed = 0
        return start, end


class _Silero:
    """The probabilities of speech for steps of 512 samples, which must come in order."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)

    def __call__(self, samples: Samples) -> list[float]:
        if not len(samples):
            return []
        steps = samples.reshape(-1, _STEP)
        before = np.concatenate((self._context[np.newaxis], steps[:-1, -_CONTEXT:]))
        self._context = steps[-1, -_CONTEXT:]
        output, self._h, self._c = self._session.run(
            None, {"input": np.concatenate((before, steps), axis=1), "h": self._h, "c": self._c}
        )
        probabilities: list[float] = output.ravel().tolist()
        return probabilities
