"""Texts that can have been said in a given time, and those of a model that repeats itself. Pure."""

import re

# No one says more characters in a second (fast speech: 20), nor does a text need more tokens.
_FASTEST = 25
# A text's first and last time, and some in between, are tokens, too.
_TIMES = 16
_WORD = re.compile(r"\w+")


def most_tokens(seconds: float) -> int:
    """Returns the number of tokens that no text of so many seconds reaches."""
    return int(_FASTEST * seconds) + _TIMES


def is_plausible(text: str, seconds: float) -> bool:
    """False for more text than can be said in the time, and for one that ends with the same words
    twice: people say so, too ("bye bye"), but less often than a model in a loop."""
    words = _WORD.findall(text.casefold())
    return len(text.strip()) <= _FASTEST * seconds and not any(
        words[-length:] == words[-2 * length : -length] for length in range(1, len(words) // 2 + 1)
    )
