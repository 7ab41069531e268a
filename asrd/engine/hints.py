"""Hotwords and the initial prompt: how much room they get, and when their effect is refused.

Whisper's decoder holds 448 tokens, and expects at most 223 of them to be previous text. Without a
shared limit hotwords and previous text leave no room for the window's own text. Even short hints
can make a small model skip most of a window, or repeat a hint instead of what is said. So each
window is decoded without hints, too, and the text with hints is taken only if it differs from the
other in nothing but words of the hints, punctuation and capitals.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from asrd.errors import WarningCode
from asrd.wire.records import JobWarning

# Whisper's own limit for all that stands before a window's text.
PROMPT_TOKENS = 223
# Hotwords get at most half, so that previous text always has the other half. A name behind 140
# tokens of others is not heard with all of it either (docs/performance.md).
HOTWORDS_TOKENS = 111
_DECODER_TOKENS = 448
# faster-whisper's own thresholds for a text that must be decoded again.
_MOST_REPETITION = 2.4
_LEAST_LOGPROB = -1.0
# Characters by which hints may lengthen or shorten one place.
_LONGER = 6
# By how much a text may be less probable.
_LESS_PROBABLE = 0.1
# Timestamps of 20 ms by which the next window may begin later or earlier.
_SHIFT = 25
_WORD = re.compile(r"\w{3,}")

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Hints:
    """The tokens of a job's hints that are used, and their words in lower case."""

    hotwords: tuple[int, ...] = ()
    initial_prompt: tuple[int, ...] = ()
    words: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.hotwords or self.initial_prompt)

    def split(self, previous: list[int]) -> tuple[list[int], list[int]]:
        """`previous` as faster-whisper keeps it, without the initial prompt; and what stands before
        a window with hints, empty if no hints apply to it."""
        room = PROMPT_TOKENS - len(self.hotwords)
        prompt = list(self.initial_prompt)
        plain, in_reach = previous, False
        if prompt and previous[: len(prompt)] == prompt:
            plain = previous[len(prompt) :]
            in_reach = len(plain) < room
        if not self.hotwords and not in_reach:
            return plain, []
        return plain, [*self.hotwords, *previous[-room:]]


def read_hints(
    hotwords: str | None, initial_prompt: str | None, encode: Encode
) -> tuple[Hints, list[JobWarning]]:
    """The hints within their limits, and a warning for each that was cut.

    Of hotwords the first count, of the prompt its end, which is next to what is said.
    """
    names, prompt = _tokens(hotwords, encode), _tokens(initial_prompt, encode)
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


def _tokens(text: str | None, encode: Encode) -> list[int]:
    return encode(f" {text.strip()}") if text and text.strip() else []


class Hinted:
    """The two methods of a WhisperModel in which hints take effect, for one job."""

    def __init__(self, model: Any, hints: Hints) -> None:
        self._prompt, self._generate = model.get_prompt, model.generate_with_fallback
        self._hints = hints
        self._before: list[int] = []

    def get_prompt(self, tokenizer: Any, previous_tokens: list[int], **options: Any) -> list[int]:
        """The prompt without hints."""
        plain, before = self._hints.split(previous_tokens)
        self._before = [tokenizer.sot_prev, *before] if before else []
        prompt: list[int] = self._prompt(tokenizer, plain, **{**options, "hotwords": None})
        return prompt

    def generate(self, encoded: Any, prompt: list[int], tokenizer: Any, options: Any) -> Any:
        """Returns the better of both results, each as faster-whisper's `generate_with_fallback`
        returns it."""
        plain = self._generate(encoded, prompt, tokenizer, options)
        count = len(plain[0].sequences_ids[0])
        if not self._before or not tokenizer.decode(plain[0].sequences_ids[0]).strip():
            return plain
        hinted_prompt = [*self._before, *tokenizer.sot_sequence]
        # Once, and not much longer than the other: a loop costs little.
        room = min(_DECODER_TOKENS - len(hinted_prompt), count + count // 4 + 16)
        once = replace(options, temperatures=options.temperatures[:1], max_new_tokens=room)
        hinted = self._generate(encoded, hinted_prompt, tokenizer, once)
        texts = [_Text.of(found, tokenizer) for found in (plain, hinted)]
        return hinted if is_better(texts[0], texts[1], self._hints.words) else plain


@dataclass(frozen=True, slots=True)
class _Text:
    """A window's text. `end` is where the next window begins, in timestamps of 20 ms."""

    text: str
    logprob: float
    repetition: float
    end: int

    @classmethod
    def of(cls, found: Any, tokenizer: Any) -> "_Text":
        kept, end = _kept(found[0].sequences_ids[0], tokenizer.timestamp_begin)
        return cls(tokenizer.decode(kept), found[1], found[3], end)


_WINDOW_END = 1500


def _kept(tokens: list[int], timestamp_begin: int) -> tuple[list[int], int]:
    """The tokens that faster-whisper keeps of a window, and where it begins the next: at the last
    pair of timestamps, without the unfinished segment behind it; or past the window."""
    if len(tokens) >= 2 and tokens[-2] < timestamp_begin <= tokens[-1]:
        return tokens, _WINDOW_END
    for index in range(len(tokens) - 1, 0, -1):
        if min(tokens[index - 1 : index + 1]) >= timestamp_begin:
            return tokens[:index], tokens[index - 1] - timestamp_begin
    return tokens, _WINDOW_END


def is_better(plain: _Text, hinted: _Text, words: frozenset[str]) -> bool:
    """True if `hinted` is likely, and the text of `plain` but for `words` and style."""
    least = max(plain.logprob - _LESS_PROBABLE, _LEAST_LOGPROB)
    # "not": nothing is true of a logprob that is no number.
    if hinted.repetition > _MOST_REPETITION or not hinted.logprob >= least:
        return False
    if abs(hinted.end - plain.end) > _SHIFT:
        return False
    before, after = plain.text.split(), hinted.text.split()
    return all(
        _may_become(" ".join(before[start:stop]), " ".join(after[start_after:stop_after]), words)
        for kind, start, stop, start_after, stop_after in SequenceMatcher(
            None, before, after, autojunk=False
        ).get_opcodes()
        if kind != "equal"
    )


def _may_become(old: str, new: str, words: frozenset[str]) -> bool:
    """True for a hint's word in place of about as much text, other punctuation or capitals, or
    other characters of a script without spaces (traditional Chinese becomes simplified)."""
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
