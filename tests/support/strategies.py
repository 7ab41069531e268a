"""Hypothesis strategies made from the field declarations: they cover each new field."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from asrd.wire.fields import Getter
from asrd.wire.languages import NAMES

# Enough for any combination; tests/wire/test_fields.py tests the bounds.
_LONGEST = 3

_CHARACTERS = st.characters(exclude_categories=["Cs"])
_JSON = st.recursive(
    st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(_CHARACTERS, max_size=9),
    lambda inner: st.lists(inner, max_size=3),
)


def instances(cls: type) -> st.SearchStrategy[Any]:
    """Returns objects of a dataclass whose fields are declared with asrd.wire.fields."""
    return st.builds(cls, **{spec.name: _values(spec) for spec in dataclasses.fields(cls)})


def _values(spec: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    accepted = _accepted_by(spec.metadata["get"])
    return accepted if spec.default is dataclasses.MISSING else accepted | st.just(spec.default)


def _accepted_by(get: Getter) -> st.SearchStrategy[Any]:
    kind = get.__qualname__.split(".")[0]
    return _MAKERS[kind](**inspect.getclosurevars(get).nonlocals)


def _string(max_length: int) -> st.SearchStrategy[Any]:
    return st.text(_CHARACTERS, max_size=min(max_length, 20))


def _line(get_text: Getter) -> st.SearchStrategy[Any]:
    longest = inspect.getclosurevars(get_text).nonlocals["max_length"]
    visible = st.characters(exclude_categories=["Cs", "Cc"])
    return st.text(visible, max_size=min(longest, 20))


def _identifier(get_text: Getter) -> st.SearchStrategy[Any]:
    printable = st.characters(exclude_categories=["C", "Z"])
    longest = inspect.getclosurevars(get_text).nonlocals["max_length"]
    return st.text(printable, min_size=1, max_size=min(longest, 20)).filter(str.isprintable)


def _sequence(getter: Getter, max_length: int) -> st.SearchStrategy[Any]:
    return st.lists(_accepted_by(getter), max_size=min(max_length, _LONGEST)).map(tuple)


_MAKERS: dict[str, Callable[..., st.SearchStrategy[Any]]] = {
    "string": _string,
    "line": _line,
    "identifier": _identifier,
    "choice": lambda allowed: st.sampled_from(allowed),
    "integer": lambda low, high: st.integers(low, high),
    "number": lambda low, high: st.floats(low, high),
    "language": lambda: st.sampled_from(sorted(NAMES)),
    "one_language": lambda: st.sampled_from(sorted(NAMES)),
    "flag": st.booleans,
    "mapping": lambda: st.dictionaries(st.text(_CHARACTERS, max_size=9), _JSON, max_size=3),
    "nested": lambda cls: instances(cls),
    "sequence": _sequence,
    "either": lambda one, other, other_types: _accepted_by(one) | _accepted_by(other),
}
