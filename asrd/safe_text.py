"""Text of unknown origin, made safe for a terminal, a log or a line of a file.

There are two kinds of text. Names, messages and tables are shown next to other text: marks of the
writing direction are escaped there, because they can make one name look like another. A transcript
is text for people: in Hebrew, Arabic, Persian or Hindi such marks, joiners and accents belong to
it, and stay. Control characters are escaped in both.
"""

import json
import re
import unicodedata
from typing import Any

# Control characters (C0, DEL, C1: the first bytes of escape sequences are among them), line and
# paragraph separators, the marks of the writing direction (Bidi_Control in Unicode's PropList.txt),
# and lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# JSON itself escapes the others; the line feeds are those of its indentation.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_SPACE = re.compile("[\t-\r\x1c-\x1f \x85\u2028\u2029]+")
# Unicode's bidirectional algorithm (UAX 9): embeddings and overrides, isolates, and their ends.
_EMBEDDINGS, _ISOLATES = "\u202a\u202b\u202d\u202e", "\u2066\u2067\u2068"
_POP_EMBEDDING, _POP_ISOLATE = "\u202c", "\u2069"
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """Returns the text with each unsafe character as a Python escape (`\\x1b`, `\\n`)."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    """Returns the escaped text, with every run of white space turned into one space."""
    return escape(" ".join(text.split()))


def quoted(text: str) -> str:
    """Returns the escaped text in double quotes, with `\\` before quotes and backslashes."""
    return '"' + escape(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def safe_json(value: Any, *, indent: int | None = None) -> str:
    """Returns `value` as JSON, with unsafe characters as `\\u` escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def transcript_line(text: str) -> str:
    """Returns the transcript on one line, with controls escaped and open directions closed; empty
    if nothing in it is visible."""
    line = _CONTROLS.sub(_escaped, _LINE_SPACE.sub(" ", text)).strip()
    if all(unicodedata.category(character) in ("Cf", "Zs") for character in line):
        return ""
    return line + _closing_marks(line)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _closing_marks(line: str) -> str:
    """Returns the marks that end what `line` leaves open, so that its direction ends with it."""
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
