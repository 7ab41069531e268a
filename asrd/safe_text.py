"""Text from elsewhere, made fit for a terminal or a line of a file.

Two kinds of text, two rules. In names, sentences and tables, which stand beside other text, marks
of the writing direction are escaped, because they can make a stranger's name look like another.
A transcript is text for people: in Hebrew, Arabic, Persian or Hindi such marks, joiners and accents
belong to it, and stay. Control characters are escaped in both.
"""

import json
import re
import unicodedata
from typing import Any

# Control characters (C0, DEL, C1: among them the escape sequences' first bytes), line and
# paragraph separators, the marks that turn the writing direction, and lone surrogates.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_SPACE = re.compile("[\t-\r\x1c-\x1f \x85\u2028\u2029]+")
# Unicode's bidirectional algorithm (UAX 9): embeddings and overrides, isolates, and their ends.
_EMBEDDINGS, _ISOLATES = "\u202a\u202b\u202d\u202e", "\u2066\u2067\u2068"
_POP_EMBEDDING, _POP_ISOLATE = "\u202c", "\u2069"
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_UNFIT_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def fit(text: str) -> str:
    """The same text with what could command a terminal written as escapes (`\\x1b`)."""
    return _UNFIT.sub(_escape, text)


def one_line(text: str) -> str:
    """`fit`, with every run of white space turned into one space."""
    return fit(" ".join(text.split()))


def transcript_line(text: str) -> str:
    """The same text on one line: controls escaped, and each direction that it opens closed.

    Empty if nothing in it can be seen.
    """
    line = _CONTROLS.sub(_escape, _LINE_SPACE.sub(" ", text)).strip()
    if all(unicodedata.category(character) in ("Cf", "Zs") for character in line):
        return ""
    return line + _closing_marks(line)


def fit_json(value: Any, *, indent: bool = False) -> str:
    """JSON that says the same, with what could command a terminal as `\\u` escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2 if indent else None)
    return _UNFIT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _closing_marks(line: str) -> str:
    """The marks that end what `line` leaves open, so that its direction ends with it."""
    missing: list[str] = []
    isolates = 0
    for mark in _DIRECTIONS.findall(line):
        if mark in _EMBEDDINGS:
            missing.append(_POP_EMBEDDING)
        elif mark in _ISOLATES:
            missing.append(_POP_ISOLATE)
            isolates += 1
        elif mark == _POP_ISOLATE and isolates:
            # It also ends the embeddings inside the isolate.
            while missing.pop() != _POP_ISOLATE:
                pass
            isolates -= 1
        elif missing[-1:] == [mark]:
            missing.pop()
    return "".join(reversed(missing))
