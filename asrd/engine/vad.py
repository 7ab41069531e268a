"""Silence taken out of a recording as it is read, and times put back into the recording.

The rules are those of faster-whisper's `get_speech_timestamps` with its default options, and its
Silero model; but where that needs the whole recording, here one pass over its blocks carries
the model's state along, so the chunks of speech are the same whatever the recording's length:

1. Each 32 ms get a probability of speech. Speech begins at 0.5 or more.
2. It ends where the probability falls under 0.35 and does not reach 0.5 again for two seconds.
3. 0.4 s on both sides belong to it. (Between two chunks lie at least 2 s, so these never meet.)
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from asrd.engine.audio.reader import RATE, Samples

_STEP = 512
_CONTEXT = 64
_SPEECH, _SILENCE = 0.5, 0.35
_MIN_SILENCE = 2 * RATE
_PAD = RATE * 400 // 1000
_NOTHING = np.zeros(0, np.float32)


class SpeechMap:
    """Where the chunks of speech lie in the recording; faster-whisper's SpeechTimestampsMap for a
    list of chunks that still grows, the last of which may be open."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._silence_before: list[float] = []
        self._silent = 0
        self._last_end = 0

    def open_chunk(self, start: int) -> None:
        """Speech from sample `start` of the recording on."""
        self._silent += start - self._last_end
        self._silence_before.append(self._silent / RATE)

    def close_chunk(self, end: int) -> None:
        self._last_end = end
        self._ends.append(end - self._silent)

    def original(self, seconds: float) -> float:
        """A time in the speech alone as one in the recording."""
        if not self._silence_before:
            return seconds
        return self._shift(seconds, self._chunk_at(seconds))

    def restore(self, segment: Any) -> None:
        """Put a faster-whisper Segment of the speech alone, and its words, into the recording."""
        for word in segment.words or ():
            # By its middle, so that both its ends are in the same chunk.
            chunk = self._chunk_at((word.start + word.end) / 2)
            word.start = self._shift(word.start, chunk)
            word.end = self._shift(word.end, chunk)
        if segment.words:
            segment.start, segment.end = segment.words[0].start, segment.words[-1].end
        else:
            segment.start = self._shift(segment.start, self._chunk_at(segment.start))
            segment.end = self._shift(segment.end, self._chunk_ending_at(segment.end))

    def _shift(self, seconds: float, chunk: int) -> float:
        return round(self._silence_before[chunk] + seconds, 2)

    def _chunk_at(self, seconds: float) -> int:
        chunk = bisect_right(self._ends, int(seconds * RATE))
        return min(chunk, len(self._silence_before) - 1)

    def _chunk_ending_at(self, seconds: float) -> int:
        sample = int(seconds * RATE)
        chunk = bisect_left(self._ends, sample)
        if chunk < len(self._ends) and self._ends[chunk] == sample:
            return chunk
        return self._chunk_at(seconds)


class SpeechFilter:
    """Iterate once for the speech in `blocks`: one array for each block, empty in silence, and one
    more for the end. `map` knows all of the speech given out so far.

    `session` is the onnxruntime session of faster-whisper's Silero model.
    """

    def __init__(self, blocks: Iterable[Samples], session: Any) -> None:
        self.map = SpeechMap()
        self._blocks = blocks
        self._probabilities = _Silero(session)
        # Samples that are not given out or dropped yet; the first is number `_base`.
        self._held = _NOTHING
        self._base = 0
        # Where the next 32 ms to be judged begin.
        self._judged = 0
        self._speaking = False
        self._silent_since: int | None = None

    def __iter__(self) -> Iterator[Samples]:
        for block in self._blocks:
            self._held = np.concatenate((self._held, block))
            whole = (self._end - self._judged) // _STEP * _STEP
            speech = self._judge(self._probabilities(self._unjudged()[:whole]))
            yield np.concatenate((*speech, self._release()))
        yield self._finish()

    @property
    def _end(self) -> int:
        return self._base + len(self._held)

    def _unjudged(self) -> Samples:
        return self._held[self._judged - self._base :]

    def _judge(self, probabilities: list[float]) -> Iterator[Samples]:
        for probability in probabilities:
            here = self._judged
            self._judged += _STEP
            if probability >= _SPEECH:
                self._silent_since = None
                if not self._speaking:
                    self._begin(here)
            elif probability < _SILENCE and self._speaking:
                if self._silent_since is None:
                    self._silent_since = here
                if here - self._silent_since >= _MIN_SILENCE:
                    yield self._stop(self._silent_since + _PAD)

    def _begin(self, start: int) -> None:
        self._speaking = True
        start = max(0, start - _PAD)
        self._drop(start)
        self.map.open_chunk(start)

    def _stop(self, end: int) -> Samples:
        self._speaking = False
        self._silent_since = None
        self.map.close_chunk(end)
        return self._take(end)

    def _release(self) -> Samples:
        """What is surely speech, whatever follows; in silence, only the padding is kept."""
        if not self._speaking:
            self._drop(max(0, self._judged - _PAD))
            return _NOTHING
        if self._silent_since is None:
            return self._take(self._judged)
        return self._take(min(self._judged, self._silent_since + _PAD))

    def _finish(self) -> Samples:
        rest, end = self._unjudged(), self._end
        speech: list[Samples] = []
        if len(rest) or self._speaking:
            # The last step is filled up with zeros, and faster-whisper blanks its end, too.
            last = np.pad(rest, (0, _STEP - len(rest)))
            last[-_CONTEXT:] = 0
            speech += self._judge(self._probabilities(last))
        if self._speaking:
            speech.append(self._stop(end))
        return np.concatenate((_NOTHING, *speech))

    def _take(self, end: int) -> Samples:
        count = max(0, end - self._base)
        taken, self._held = self._held[:count], self._held[count:]
        self._base += len(taken)
        return taken

    def _drop(self, end: int) -> None:
        self._take(end)


class _Silero:
    """Probability of speech for each 512 samples, given in order."""

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
