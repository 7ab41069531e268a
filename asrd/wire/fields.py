"""Typed fields: the only way from untrusted JSON to checked data.

A frozen dataclass declares each field with `field(getter)`. `parse` runs the getters and names the
wrong key; `dump` turns the object back into JSON data. Events and settings share the getters, so
an error reads the same for both.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from asrd.errors import FieldError

T = TypeVar("T")
Getter = Callable[[str, object], Any]

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def field(getter: Getter, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """Declares a dataclass field that `parse` fills by `getter`; required without a default."""
    return dataclasses.field(default=default, metadata={"get": getter, **metadata})


def parse(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Returns a `cls` made from untrusted `data`. Null counts as absent; unknown keys are ignored.

    Raises FieldError with the dotted key (`audio.sample_rate`).
    """
    values = {}
    for name, get, required in _specs(cls):  # type: ignore[arg-type]
        raw = data.get(name)
        if raw is not None:
            values[name] = get(where + name, raw)
        elif required:
            raise FieldError(where + name, "is missing")
    return cls(**values)


@functools.cache
def _specs(cls: Any) -> tuple[tuple[str, Getter, bool], ...]:
    """Returns name, getter and "is required" of each field."""
    return tuple(
        (spec.name, spec.metadata["get"], spec.default is dataclasses.MISSING)
        for spec in dataclasses.fields(cls)
    )


@functools.cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(spec.name for spec in dataclasses.fields(cls))


def unknown_keys(cls: type, data: Mapping[str, Any]) -> list[str]:
    """Returns the keys that `cls` does not declare; those of a field with `table` are dotted."""
    unknown = [key for key in data if key not in _names(cls)]
    for spec in dataclasses.fields(cls):
        table, inner = spec.metadata.get("table"), data.get(spec.name)
        if table is not None and isinstance(inner, dict):
            unknown += [f"{spec.name}.{key}" for key in unknown_keys(table, inner)]
    return unknown


def dump(value: Any) -> Any:
    """Returns JSON data; fields that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((name, getattr(value, name)) for name in _names(type(value)))
        return {name: dump(item) for name, item in pairs if item is not None}
    if isinstance(value, (list, tuple)):
        return [dump(item) for item in value]
    return value


def path(max_length: int) -> Getter:
    """A getter for the name of a file, which may be any bytes (surrogates, by `os.fsdecode`)."""

    def get(key: str, raw: object) -> str:
        return _short(key, raw, max_length)

    return get


def _short(key: str, raw: object, max_length: int) -> str:
    if not isinstance(raw, str):
        raise FieldError(key, "must be a string")
    if len(raw) > max_length:
        raise FieldError(key, f"is longer than {max_length} characters")
    return raw


def string(max_length: int) -> Getter:
    """A getter for text that can be sent: JSON has no lone surrogates, by which Python represents
    the bytes of an argument that are not UTF-8."""

    def get(key: str, raw: object) -> str:
        value = _short(key, raw, max_length)
        if not value.isascii() and _SURROGATE.search(value):
            raise FieldError(key, "is not valid UTF-8")
        return value

    return get


def line(max_length: int) -> Getter:
    """A getter for text without control characters, except white space around it."""
    get_text = string(max_length)

    def get(key: str, raw: object) -> str:
        value: str = get_text(key, raw)
        if _CONTROL.search(value.strip()):
            raise FieldError(key, "must not contain control characters")
        return value

    return get


def identifier(max_length: int = 128) -> Getter:
    """A getter for names that are safe in log lines and tables: printable, without spaces."""
    get_text = string(max_length)

    def get(key: str, raw: object) -> str:
        value: str = get_text(key, raw)
        if not value or not value.isprintable() or any(c.isspace() for c in value):
            raise FieldError(key, "must be a non-empty printable string without spaces")
        return value

    return get


def choice(*allowed: str) -> Getter:
    def get(key: str, raw: object) -> str:
        if not isinstance(raw, str) or raw not in allowed:
            raise FieldError(key, "must be one of " + ", ".join(allowed))
        return raw

    return get


def integer(low: int, high: int) -> Getter:
    def get(key: str, raw: object) -> int:
        if not isinstance(raw, int) or isinstance(raw, bool):
            raise FieldError(key, "must be an integer")
        if not low <= raw <= high:
            problem = f"must be between {low} and {high}" if low < high else f"must be {low}"
            raise FieldError(key, problem)
        return raw

    return get


def number(low: float, high: float) -> Getter:
    def get(key: str, raw: object) -> float:
        if not isinstance(raw, (int, float)) or isinstance(raw, bool):
            raise FieldError(key, "must be a number")
        if not (low <= raw <= high and math.isfinite(raw)):
            raise FieldError(key, f"must be between {low:g} and {high:g}")
        return float(raw)

    return get


def flag(key: str, raw: object) -> bool:
    if not isinstance(raw, bool):
        raise FieldError(key, "must be true or false")
    return raw


def mapping(key: str, raw: object) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise FieldError(key, "must be an object")
    return raw


def nested(cls: type) -> Getter:
    def get(key: str, raw: object) -> Any:
        return parse(cls, mapping(key, raw), key + ".")

    return get


def sequence(getter: Getter, max_length: int) -> Getter:
    def get(key: str, raw: object) -> tuple[Any, ...]:
        if not isinstance(raw, (list, tuple)):
            raise FieldError(key, "must be a list")
        if len(raw) > max_length:
            raise FieldError(key, f"has more than {max_length} items")
        return tuple(getter(f"{key}[{i}]", item) for i, item in enumerate(raw))

    return get


class Table(dict[str, str]):
    """Texts by their names. Unlike a dict, it may be the default of a frozen dataclass."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def table(get_name: Getter, get_value: Getter, max_length: int) -> Getter:
    def get(key: str, raw: object) -> Table:
        items = raw.items() if isinstance(raw, dict) else None
        if items is None:
            raise FieldError(key, "must be a table")
        if len(items) > max_length:
            raise FieldError(key, f"has more than {max_length} entries")
        return Table({get_name(key, name): get_value(f"{key}.{name}", of) for name, of in items})

    return get


def either(one: Getter, other: Getter, other_types: tuple[type, ...]) -> Getter:
    """A getter for fields of two kinds: values of `other_types` go through `other`."""

    def get(key: str, raw: object) -> Any:
        return (other if isinstance(raw, other_types) else one)(key, raw)

    return get


def by_type(*classes: type) -> dict[str, type]:
    return {cls.TYPE: cls for cls in classes}  # type: ignore[attr-defined]


def parse_event(table: Mapping[str, type], kind: str, data: Mapping[str, Any]) -> Any:
    """Returns the event's dataclass, None for a type that is not in `table` (to be ignored).

    Raises FieldError naming the field.
    """
    cls = table.get(kind)
    return None if cls is None else parse(cls, data)
