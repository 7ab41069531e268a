"""Texts that can have been said in a given time, and those of a model that repeats itself. Pure."""

import unicodedata
from collections.abc import Sequence

# In a second; fast speech has 20 characters.
_MOST_CHARACTERS = 25
# In a second: scripts that a tokenizer knows badly take three tokens for a character.
_MOST_TOKENS = 40
# A text's first and last time, and some in between, are tokens, too.
_TIMES = 16


def most_tokens(seconds: float) -> int:
    """Returns the number of tokens that hardly any text of so many seconds reaches."""
    return int(_MOST_TOKENS * seconds) + _TIMES


def is_plausible(text: str, seconds: float) -> bool:
    """False for more text than can be said in the time, and for one that ends with the same words
    twice: people say so, too ("bye bye"), but less often than a model in a loop."""
    words = _words(text.casefold())
    return len(text.strip()) <= _MOST_CHARACTERS * seconds and not (
        _ends_twice(words, 1)
        # Some scripts have no spaces.
        or _ends_twice("".join(words), 4)
    )


def _words(text: str) -> list[str]:
    """Letters with their marks, which are vowels in many scripts, and digits."""
    kept = (each if unicodedata.category(each)[0] in "LMN" else " " for each in text)
    return "".join(kept).split()


def _ends_twice(items: Sequence[str], least: int) -> bool:
    """True if the last items, `least` or more, are the same as those before them."""
    return any(
        items[-length:] == items[-2 * length : -length]
        for length in range(least, len(items) // 2 + 1)
    )
