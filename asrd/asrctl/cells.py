"""The width of text on a terminal, in cells: 日 takes two, a combining accent none.

Terminals disagree on emoji of several characters. Those are counted too wide rather than too
narrow, so that a line never wraps.
"""

import unicodedata
from itertools import accumulate


def cells(text: str) -> int:
    return sum(map(_width, text))


def ljust(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def cut(text: str, width: int) -> str:
    """Returns the longest start of `text` that fits."""
    return text[: sum(used <= width for used in accumulate(map(_width, text)))]


def cut_start(text: str, width: int) -> str:
    """Returns `text` if it fits, otherwise an ellipsis and the longest end that fits."""
    if cells(text) <= width:
        return text
    kept = sum(used < width for used in accumulate(map(_width, reversed(text))))
    end = text[len(text) - kept :]
    # A combining character would otherwise be drawn on the ellipsis.
    while end and not _width(end[0]):
        end = end[1:]
    return cut("…" + end, width)


def _width(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    if "\u1160" <= character <= "\u11ff":
        # The vowels and final consonants of Hangul that is written letter by letter.
        return 0
    if character == "\ufe0f":
        # It turns the symbol before it into an emoji, which may be one cell wider.
        return 1
    category = unicodedata.category(character)
    return int(category not in ("Mn", "Me") and not (category == "Cf" and character > "\u200a"))
