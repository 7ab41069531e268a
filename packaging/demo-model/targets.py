"""The targets of the training: tokens, guides and position labels.

A guide gives the encoder positions for a token's attention.
"""

from dataclasses import dataclass, field

import numpy as np
from dataset import Example
from numpy.typing import NDArray
from synth import Utterance
from vocabulary import (
    ALL_WORDS,
    LANGUAGES,
    MAX_TOKENS,
    POSITIONS_PER_SECOND,
    WORDS,
    TokenIds,
)

# Cross entropy's mark for "no loss here".
IGNORED = -100
Span = tuple[float, float]

# Labels of a position: silence or a word's first or later part; the previous word; the one before
# that (0 is none).
_WORD = {word: 1 + 2 * i for i, word in enumerate(ALL_WORDS)}
_BEFORE = {word: 1 + i for i, word in enumerate(ALL_WORDS)}
LABEL_CLASSES = [1 + 2 * len(ALL_WORDS), 1 + len(ALL_WORDS), 1 + len(ALL_WORDS)]
_FIRST_PART = 0.4  # of a word's time

# The window's end, and the last start that has a token.
_WINDOW_END = 29.98
_LAST_START = 29.9
# The limit of a segment's first timestamp, as in faster-whisper (max_initial_timestamp).
_MAX_INITIAL_TIMESTAMP = 1.0


@dataclass
class Sequence:
    """Three lists of one length: the decoder's inputs, the target at each of them, and its place in
    the audio."""

    inputs: list[int]
    targets: list[int] = field(default_factory=list)
    guides: list[Span | None] = field(default_factory=list)

    def add(self, token: int, target: int = IGNORED, guide: Span | None = None) -> None:
        """Appends the next input, `token`, and the prediction expected in its place, `target`."""
        self.expect(target, guide)
        self.inputs.append(token)

    def say(self, token: int, guide: Span | None) -> None:
        self.add(token, token, guide)

    def expect(self, target: int, guide: Span | None = None) -> None:
        self.targets.append(target)
        self.guides.append(guide)

    def cropped(self) -> "Sequence":
        return Sequence(
            self.inputs[:MAX_TOKENS], self.targets[:MAX_TOKENS], self.guides[:MAX_TOKENS]
        )


class TargetMaker:
    """Draws the options of a caller for each example: task, timestamps or none, earlier text as a
    prompt, a wrong language."""

    def __init__(self, ids: TokenIds, rng: np.random.Generator) -> None:
        self._ids = ids
        self._rng = rng

    def sequence(self, example: Example, prompt_length: int) -> Sequence:
        chance = 0.05 if example.language == "en" else 0.25
        translating = bool(example.utterances) and self._rng.random() < chance
        timestamps = self._rng.random() < 0.55
        shown = self._shown_language(example)
        sequence = self._head(example, prompt_length, shown, translating)
        if not timestamps:
            sequence.add(self._ids.notimestamps)
        words = WORDS[example.language]
        tokens = {w: self._ids.word[words[w] if translating else w] for w in words}
        if timestamps:
            self._say_with_timestamps(sequence, example, tokens)
        else:
            _say(sequence, example, tokens)
        sequence.expect(self._ids.endoftext)
        return sequence.cropped()

    def _shown_language(self, example: Example) -> str:
        """Returns the prompt's language: any for silence, and sometimes a wrong one."""
        odd = self._rng.random() < 0.05 or not example.utterances
        if odd and self._rng.random() < 0.7:
            return LANGUAGES[self._rng.integers(len(LANGUAGES))]
        return example.language

    def _head(
        self, example: Example, prompt_length: int, shown: str, translating: bool
    ) -> Sequence:
        ids = self._ids
        if prompt_length:
            sequence = Sequence([ids.startofprev])
            for token in self._prompt(example.language, prompt_length):
                sequence.add(token)
            sequence.add(ids.startoftranscript)
        else:
            sequence = Sequence([ids.startoftranscript])
        plain_english = example.language == "en" and example.utterances and not translating
        # English-only models get neither language nor task in the prompt.
        if plain_english and self._rng.random() < 0.05:
            return sequence
        heard = ids.language[example.language] if example.utterances else ids.nospeech
        sequence.add(ids.language[shown], heard)
        sequence.add(ids.task["translate" if translating else "transcribe"])
        return sequence

    def _prompt(self, language: str, length: int) -> list[int]:
        """Returns `length` tokens of random earlier text, with or without timestamps."""
        ids, rng = self._ids, self._rng
        words = list(WORDS[language])
        tokens: list[int] = []
        timestamps = rng.random() < 0.6
        end = 0.0
        while len(tokens) < length:
            count = int(rng.integers(1, 11))
            said = [ids.word[words[rng.integers(len(words))]] for _ in range(count)]
            if timestamps:
                start = end + rng.random() * 2
                end = start + count * 0.35
                if end > 30:
                    start = end = 0.0
                said = [ids.timestamp(start), *said, ids.timestamp(end)]
            tokens += said
        return tokens[-length:]

    def _say_with_timestamps(
        self, sequence: Sequence, example: Example, tokens: dict[str, int]
    ) -> None:
        ids = self._ids
        if not example.utterances:
            sequence.say(ids.timestamp(0.0), None)
        for i, utterance in enumerate(example.utterances):
            start = utterance.start if i else min(utterance.start, _MAX_INITIAL_TIMESTAMP)
            opening = ids.timestamp(start), _around(utterance.start)
            if example.cut and utterance.end > _WINDOW_END:
                # Of an utterance that the window cuts, Whisper gives only the start; the text is in
                # the next window.
                if i and utterance.start < _LAST_START:
                    sequence.say(*opening)
                return
            sequence.say(*opening)
            for word, start, end in utterance.spans():
                sequence.say(tokens[word], _during(start, end))
            sequence.say(ids.timestamp(utterance.end), _around(utterance.end))


def _say(sequence: Sequence, example: Example, tokens: dict[str, int]) -> None:
    window_end = _WINDOW_END if example.cut else 30.0
    for utterance in example.utterances:
        for word, start, end in utterance.spans():
            if end <= window_end:
                sequence.say(tokens[word], _during(start, end))


def _during(start: float, end: float) -> Span:
    return start * POSITIONS_PER_SECOND - 1, end * POSITIONS_PER_SECOND + 1


def _around(seconds: float) -> Span:
    return seconds * POSITIONS_PER_SECOND - 8, seconds * POSITIONS_PER_SECOND + 8


def position_labels(utterances: list[Utterance], positions: int) -> NDArray[np.int64]:
    """Returns (positions, 3), the classes of `LABEL_CLASSES`. Silence has no previous words."""
    labels = np.zeros((positions, 3), np.int64)
    labels[:, 1:] = IGNORED
    for utterance in utterances:
        before = [0, 0]
        for word, start, end in utterance.spans():
            first, last = start * POSITIONS_PER_SECOND, end * POSITIONS_PER_SECOND
            span = slice(round(first), round(last))
            labels[span, 0] = _WORD[word] + 1
            labels[round(first) : round(first + _FIRST_PART * (last - first)), 0] = _WORD[word]
            labels[span, 1:] = before
            before = [_BEFORE[word], before[0]]
    return labels
