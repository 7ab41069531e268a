"""Hotwords and the initial prompt: how many tokens they get, and when their effect is kept.

Whisper's decoder holds 448 tokens and expects at most 223 of them to be previous text. Without a
common limit, hints and previous text leave no room for the window's own text. Even short hints can
make a small model skip most of a window, or repeat a hint instead of the speech. So each window is
decoded without hints, too. The text with hints is kept only if the two differ in nothing but words
of the hints, punctuation and capitals.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher

from asrd.errors import WarningCode
from asrd.wire.records import JobWarning

# Whisper's own limit for everything before a window's text.
PROMPT_TOKENS = 223
# Hotwords get at most half, so that previous text always has the other half. More would not help:
# a name after 140 tokens of others has no effect.
HOTWORDS_TOKENS = 111
# faster-whisper's own thresholds for a text that must be decoded again.
_MOST_REPETITION = 2.4
_LEAST_LOGPROB = -1.0
# The most characters by which hints may lengthen or shorten one place.
_LONGER = 6
# The most by which a text with hints may be less probable.
_LESS_PROBABLE = 0.1
# The most frames of 10 ms by which the next window may move.
_SHIFT = 50
_WORD = re.compile(r"\w{3,}")


@dataclass(frozen=True, slots=True)
class Hints:
    """The tokens of a job's hints that are used, and the words of all in lower case."""

    hotwords: tuple[int, ...] = ()
    initial_prompt: tuple[int, ...] = ()
    words: frozenset[str] = frozenset()

    def split(self, previous: list[int]) -> tuple[list[int], list[int]]:
        """Returns `previous` without the initial prompt, and the context of a window with hints.

        `previous` is faster-whisper's list of tokens, which begins with the initial prompt until
        faster-whisper resets it. The context is empty if no hint applies to the window.
        """
        length = len(self.initial_prompt)
        has_prompt = length and tuple(previous[:length]) == self.initial_prompt
        plain = previous[length:] if has_prompt else previous
        room = PROMPT_TOKENS - len(self.hotwords)
        if self.hotwords or (has_prompt and len(plain) < room):
            return plain, [*self.hotwords, *previous[-room:]]
        return plain, []


def read_hints(
    hotwords: str | None, initial_prompt: str | None, encode: Callable[[str], list[int]]
) -> tuple[Hints, list[JobWarning]]:
    """Returns the hints within their limits, and a warning for each one that was cut.

    The first hotwords are kept, and the end of the prompt, which is next to the speech.
    """
    names, prompt = (
        encode(f" {text.strip()}") if text and text.strip() else []
        for text in (hotwords, initial_prompt)
    )
    used = names[:HOTWORDS_TOKENS]
    room = PROMPT_TOKENS - len(used)
    warnings = [
        JobWarning(
            WarningCode.HINTS_CUT,
            f"{field}: {limit} of {given} tokens are used ({which}), there is no room for more",
        )
        for field, given, limit, which in (
            ("hotwords", len(names), HOTWORDS_TOKENS, "the first"),
            ("initial_prompt", len(prompt), room, "the last"),
        )
        if given > limit
    ]
    words = _WORD.findall(f"{hotwords or ''} {initial_prompt or ''}".casefold())
    return Hints(tuple(used), tuple(prompt[-room:]), frozenset(words)), warnings


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded window: its text, average log probability, compression ratio, and the frame (of
    10 ms) at which the next window begins."""

    text: str
    logprob: float
    repetition: float
    end: int


def is_better(plain: Decoded, hinted: Decoded, words: frozenset[str]) -> bool:
    """True if `hinted` is probable and differs from `plain` only in `words` and style."""
    least = max(plain.logprob - _LESS_PROBABLE, _LEAST_LOGPROB)
    # "not": every comparison with a NaN is false.
    if hinted.repetition > _MOST_REPETITION or not hinted.logprob >= least:
        return False
    if abs(hinted.end - plain.end) > _SHIFT:
        return False
    before, after = plain.text.split(), hinted.text.split()
    return all(
        kind == "equal" or _may_become(" ".join(before[a:b]), " ".join(after[c:d]), words)
        for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    )


def _may_become(old: str, new: str, words: frozenset[str]) -> bool:
    """True for a hint's word in place of about as much text, for other punctuation or capitals, and
    for other characters of a script without spaces (traditional and simplified Chinese)."""
    if _letters(old) == _letters(new):
        return True
    if len(old) == len(new) and all(
        a == b or min(a, b) > "\x7f" for a, b in zip(old, new, strict=True)
    ):
        return True
    return abs(len(new) - len(old)) <= _LONGER and not words.isdisjoint(
        _WORD.findall(new.casefold())
    )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
