"""Text from elsewhere, made fit for a terminal or a line of a file."""

import json
import re
from typing import Any

# Control characters (C0, DEL, C1: among them the escape sequences' first bytes), line and
# paragraph separators, the marks that turn the writing direction, and lone surrogates.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNFIT_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def fit(text: str) -> str:
    """The same text with what could command a terminal written as escapes (`\\x1b`)."""
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """`fit`, with every run of white space turned into one space."""
    return fit(" ".join(text.split()))


def fit_json(value: Any, *, indent: bool = False) -> str:
    """JSON that says the same, with what could command a terminal as `\\u` escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2 if indent else None)
    return _UNFIT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
