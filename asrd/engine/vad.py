"""Silence taken out of a recording as it is read, and times put back into the recording.

The rules are those of faster-whisper's `get_speech_timestamps` with its default options, and its
Silero model. But faster-whisper needs the whole recording. Here one pass over the blocks carries
the model's state along, and finds the same chunks of speech:

1. Each 32 ms get a probability of speech. Speech begins at 0.5 or more.
2. It ends where the probability falls below 0.35 and does not reach 0.5 again for two seconds.
3. 0.4 s on both sides belong to it. (Between two chunks lie at least 2 s, so these never meet.)
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from faster_whisper.vad import SpeechTimestampsMap

from asrd.engine.audio.reader import RATE, Samples
from asrd.engine.mel import NO_SAMPLES

_STEP = 512
_CONTEXT = 64
_SPEECH, _SILENCE = 0.5, 0.35
_MIN_SILENCE = 2 * RATE
_PAD = RATE * 400 // 1000


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
    more at the end. `map` has the places of all speech returned so far.

    `session` is the onnxruntime session of faster-whisper's Silero model.
    """

    def __init__(self, blocks: Iterable[Samples], session: Any) -> None:
        self.map = SpeechMap()
        self._blocks = blocks
        self._probabilities = _Silero(session)
        # The samples that are neither returned nor dropped yet; the first is number `_base`.
        self._held = NO_SAMPLES
        self._base = 0
        # The sample at which the next 32 ms to be judged begin.
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
        self._take(start)
        self.map.open_chunk(start)

    def _stop(self, end: int) -> Samples:
        self._speaking = False
        self._silent_since = None
        self.map.close_chunk(end)
        return self._take(end)

    def _release(self) -> Samples:
        """Returns the samples that are speech no matter what follows. In silence, keeps only the
        padding of a chunk that may begin."""
        if not self._speaking:
            self._take(max(0, self._judged - _PAD))
            return NO_SAMPLES
        if self._silent_since is None:
            return self._take(self._judged)
        return self._take(min(self._judged, self._silent_since + _PAD))

    def _finish(self) -> Samples:
        rest, end = self._unjudged(), self._end
        speech: list[Samples] = []
        if len(rest) or self._speaking:
            # faster-whisper fills up the last step with zeros, and blanks its end.
            last = np.pad(rest, (0, _STEP - len(rest)))
            last[-_CONTEXT:] = 0
            speech += self._judge(self._probabilities(last))
        if self._speaking:
            speech.append(self._stop(end))
        return np.concatenate((NO_SAMPLES, *speech))

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
        found += sum(each >= _SPEECH for each in judged) * _STEP / RATE
        if found >= enough:
            break
    return found


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
