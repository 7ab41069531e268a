"""What a field's declaration says, in the words of the documentation."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

from asrd.wire.fields import Getter


def accepts(get: Getter) -> str:
    """`integer, 0 to 9`: what a getter lets through."""
    kind = get.__qualname__.split(".")[0]
    return _WORDS[kind](**inspect.getclosurevars(get).nonlocals)


def default(spec: dataclasses.Field[Any]) -> str:
    """The default as JSON; what has none is absent."""
    if spec.default is dataclasses.MISSING:
        return "required"
    return "absent" if spec.default in (None, ()) else f"`{json.dumps(spec.default)}`"


def _number(value: float) -> str:
    """2^53 and 7 days are read more easily than their digits."""
    if value >= 1 << 20 and value == int(value) and int(value).bit_count() == 1:
        return f"2^{int(value).bit_length() - 1}"
    return f"{value:,g}" if value != int(value) else f"{int(value):,}"


def _between(what: str) -> Callable[..., str]:
    def words(low: float, high: float) -> str:
        return f"{what}, {_number(low)} to {_number(high)}" if low < high else f"{_number(low)}"

    return words


_WORDS: dict[str, Callable[..., str]] = {
    "string": lambda max_length: f"text, up to {_number(max_length)} characters",
    "identifier": lambda get_text: (
        f"name, up to {inspect.getclosurevars(get_text).nonlocals['max_length']} characters"
    ),
    "choice": lambda allowed: " or ".join(f"`{word}`" for word in allowed),
    "integer": _between("integer"),
    "number": _between("number"),
    "language": lambda: "a language: code, tag or English name",
    "language_or_empty": lambda: "a language: code, tag or English name",
    "flag": lambda: "`true` or `false`",
    "mapping": lambda: "object",
    "nested": lambda cls: f"object: {cls.__name__}",
    "sequence": lambda getter, max_length: f"list of {_number(max_length)}: {accepts(getter)}",
    "text_or": lambda one, text: f"{accepts(one)}; or {accepts(text)}",
    "either": lambda one, many: f"{accepts(one)}; or {accepts(many)}",
}
