"""Field declarations in the words of the documentation."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

from asrd.wire.fields import Getter


def accepts(get: Getter) -> str:
    """Returns the values that a getter accepts: `integer, 0 to 9`."""
    kind = get.__qualname__.split(".")[0]
    return _WORDS[kind](**inspect.getclosurevars(get).nonlocals)


def default(spec: dataclasses.Field[Any]) -> str:
    """Returns the default as JSON, or `absent`, or `required`."""
    if spec.default is dataclasses.MISSING:
        return "required"
    return "absent" if spec.default in (None, ()) else f"`{json.dumps(spec.default)}`"


def _number(value: float) -> str:
    """Returns powers of two as such, other numbers with commas."""
    if value >= 1 << 20 and value == int(value) and int(value).bit_count() == 1:
        return f"2^{int(value).bit_length() - 1}"
    return f"{value:,g}" if value != int(value) else f"{int(value):,}"


def _between(what: str) -> Callable[..., str]:
    def words(low: float, high: float) -> str:
        return f"{what}, {_number(low)} to {_number(high)}" if low < high else f"{_number(low)}"

    return words


_WORDS: dict[str, Callable[..., str]] = {
    "string": lambda max_length: f"text, up to {_number(max_length)} characters",
    "path": lambda max_length: f"text, up to {_number(max_length)} characters",
    "line": lambda get_text: accepts(get_text),
    "identifier": lambda get_text: (
        f"name, up to {inspect.getclosurevars(get_text).nonlocals['max_length']} characters"
    ),
    "choice": lambda allowed: " or ".join(f"`{word}`" for word in allowed),
    "integer": _between("integer"),
    "number": _between("number"),
    "language": lambda: "a language: code, tag or English name",
    "one_language": lambda: "a language: code, tag or English name",
    "language_or_empty": lambda: "a language: code, tag or English name",
    "table": lambda get_name, get_value, max_length: (
        f"table of {_number(max_length)}: {accepts(get_value)}"
    ),
    "flag": lambda: "`true` or `false`",
    "mapping": lambda: "object",
    "nested": lambda cls: f"object: {cls.__name__}",
    "sequence": lambda getter, max_length: f"list of {_number(max_length)}: {accepts(getter)}",
    "either": lambda one, other, other_types: f"{accepts(one)}; or {accepts(other)}",
}
