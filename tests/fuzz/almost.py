"""Almost valid data for the declared records: values that are right, at a bound, just past it, or
of a wrong type. It is made from the declarations, so that a new field is fuzzed at once."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from asrd.wire.fields import Getter

T = TypeVar("T")

# The chances, of 256, that a field is missing and that it has a wrong type.
_MISSING = 4
_WRONG = 12
# Sizes of values without a bound within a fuzzer's reach.
_LONG = 5000
_SEVERAL = 3
_CHARACTERS = "a0 -_.é日\n\x00\x1b\x7f\u202e\u2028\U0001f600%s{}/\\\"'"
_NUMBERS = (0, 1, -1, 0.5, -0.0, 1e-320, 1e308, -1e308, 255, 1 << 31, 1 << 53, -(1 << 63), 1 << 64)


class Source:
    """Decisions made of bytes, which come from a fuzzer or from a seed. After the last byte come
    zeros, of which small and valid values should be made."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def number(self, count: int) -> int:
        """A number below 256 to the power of `count`."""
        value = 0
        for _ in range(count):
            value = value << 8 | self.byte()
        return value

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def rest(self) -> bytes:
        data = self._data[self._at :]
        self._at = len(self._data)
        return data


Maker = Callable[[Source], Any]


def record(cls: type) -> Maker:
    """A maker of a record's data. Zeros make the required fields alone, with their least values."""
    makers = [
        (spec.name, spec.default is dataclasses.MISSING, _by(spec.metadata["get"]))
        for spec in dataclasses.fields(cls)
    ]

    def make(source: Source) -> dict[str, Any]:
        data = {}
        for name, required, value in makers:
            fate = source.byte()
            if fate >= 256 - _MISSING:
                continue
            if fate >= 256 - _MISSING - _WRONG:
                data[name] = anything(source)
            elif required or fate % 2:
                data[name] = value(source)
        return data

    return make


def anything(source: Source, depth: int = 3) -> Any:
    """A JSON value of any type."""
    kind = source.byte() % (8 if depth else 6)
    if kind < 3:
        return (None, False, True)[kind]
    if kind < 6:
        return (_any_number, text, _any_integer)[kind - 3](source)
    items = [anything(source, depth - 1) for _ in range(source.byte() % 4)]
    return items if kind == 6 else {text(source): item for item in items}


def text(source: Source, longest: int = 8) -> str:
    length = source.byte() % (longest + 1)
    return "".join(source.pick(_CHARACTERS) for _ in range(length))


def _any_number(source: Source) -> float:
    return source.pick(_NUMBERS)


def _any_integer(source: Source) -> int:
    return source.number(8) - (1 << 63)


def _by(get: Getter) -> Maker:
    kind = get.__qualname__.split(".")[0]
    return _MAKERS[kind](**inspect.getclosurevars(get).nonlocals)


def _string(max_length: int) -> Maker:
    edges = [n for n in (max_length, max_length + 1) if n <= _LONG]

    def make(source: Source) -> str:
        if edges and (choice := source.byte()) >= 240:
            return source.pick(_CHARACTERS) * edges[choice % len(edges)]
        return text(source)

    return make


def _identifier(get_text: Getter) -> Maker:
    plain = _by(get_text)

    def make(source: Source) -> str:
        choice = source.byte()
        return plain(source) if choice >= 192 else f"id-{choice}"

    return make


def _language() -> Maker:
    plain, known = _string(64), ("en", "DE", "zh-Hant", "auto", "german", "xx")
    return lambda source: plain(source) if source.byte() % 2 else source.pick(known)


def _integer(low: int, high: int) -> Maker:
    bounds = (low, high, low + 1, high - 1, low - 1, high + 1)

    def make(source: Source) -> int:
        choice = source.byte() % 16
        return bounds[choice] if choice < len(bounds) else low + source.number(8) % (high - low + 1)

    return make


def _number(low: float, high: float) -> Maker:
    bounds = (low, high, (low + high) / 2, 1, low - 1, high + 1)

    def make(source: Source) -> float:
        choice = source.byte() % 16
        share = source.byte() / 255
        return bounds[choice] if choice < len(bounds) else low + (high - low) * share

    return make


def _sequence(getter: Getter, max_length: int) -> Maker:
    one = _by(getter)

    def make(source: Source) -> list[Any]:
        choice = source.byte()
        if choice >= 250 and max_length <= _LONG:
            return [one(source)] * (max_length + choice % 2)
        return [one(source) for _ in range(choice % (_SEVERAL + 1))]

    return make


def _either(one: Getter, other: Getter, other_types: tuple[type, ...]) -> Maker:
    makers = [_by(one), _by(other)]
    return lambda source: source.pick(makers)(source)


def _mapping(source: Source) -> dict[str, Any]:
    return {text(source): anything(source) for _ in range(source.byte() % 4)}


_MAKERS: dict[str, Callable[..., Maker]] = {
    "string": _string,
    "line": lambda get_text: _by(get_text),
    "identifier": _identifier,
    "language": _language,
    "one_language": _language,
    "choice": lambda allowed: lambda source: source.pick([*allowed, "neither"]),
    "integer": _integer,
    "number": _number,
    "flag": lambda: lambda source: bool(source.byte() % 2),
    "mapping": lambda: _mapping,
    "nested": record,
    "sequence": _sequence,
    "either": _either,
}
