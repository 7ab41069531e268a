"""Each getter accepts the values that it documents, and names the key of others."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from asrd.errors import FieldError
from asrd.wire import fields
from asrd.wire.fields import dump, field, parse


@dataclass(frozen=True)
class Inner:
    size: int = field(fields.integer(0, 9))
    name: str | None = field(fields.string(3), None)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(fields.nested(Inner))
    many: tuple[Inner, ...] = field(fields.sequence(fields.nested(Inner), 2), ())
    on: bool = field(fields.flag, False)


STRING, IDENTIFIER, CHOICE = fields.string(3), fields.identifier(9), fields.choice("a", "b")
PATH, LINE = fields.path(3), fields.line(3)
INTEGER, NUMBER = fields.integer(-1, 5), fields.number(0, 2)
LIST = fields.sequence(fields.integer(0, 9), 2)
EITHER = fields.either(NUMBER, fields.sequence(NUMBER, 2), (list, tuple))
NOT_STRINGS = [1, True, [], {}, b"x"]
NOT_NUMBERS = ["1", True, [], {}, b"1"]
Getter = Callable[[str, object], Any]

GOOD: list[tuple[Getter, list[object]]] = [
    (STRING, ["", "äöü", "\n", "\U0001f600"]),
    (PATH, ["", "äöü", "/\udcff"]),
    (LINE, ["", "äöü", " a ", "a\n"]),
    (IDENTIFIER, ["a-b", "äöü"]),
    (CHOICE, ["a", "b"]),
    (INTEGER, [-1, 0, 5]),
    (NUMBER, [0, 2, 1e-300]),
    (fields.flag, [True, False]),
    (fields.mapping, [{}, {"a": 1}]),
    (LIST, [(), (1, 2)]),
    (EITHER, [0.5, (0.5, 1.0), ()]),
]
BAD: list[tuple[Getter, list[object], str]] = [
    (STRING, NOT_STRINGS, "must be a string"),
    (STRING, ["abcd"], "is longer than 3 characters"),
    (STRING, ["\ud800", "a\udcff"], "is not valid UTF-8"),
    (PATH, NOT_STRINGS, "must be a string"),
    (PATH, ["\udcff" * 4], "is longer than 3 characters"),
    (LINE, ["\ud800"], "is not valid UTF-8"),
    (LINE, ["\x00", "a\nb", "\x9b1"], "must not contain control characters"),
    (IDENTIFIER, NOT_STRINGS, "must be a string"),
    (IDENTIFIER, ["a" * 10], "is longer than 9 characters"),
    (
        IDENTIFIER,
        ["", " ", "a b", "a\n", "\x1b[m", "\u200b", "a\u2028", "\u3000"],
        "must be a non-empty printable string without spaces",
    ),
    (CHOICE, ["c", "A", "", 1, ["a"], {"a": 1}], "must be one of a, b"),
    (INTEGER, [*NOT_NUMBERS, 1.0, math.nan], "must be an integer"),
    (INTEGER, [-2, 6, 1 << 70], "must be between -1 and 5"),
    (NUMBER, NOT_NUMBERS, "must be a number"),
    (NUMBER, [-0.1, 2.1, math.nan, math.inf, 1 << 2000], "must be between 0 and 2"),
    (fields.flag, [0, "true", None], "must be true or false"),
    (fields.mapping, [[], "x", 1], "must be an object"),
    (LIST, ["12", 1, {}], "must be a list"),
    (LIST, [[1, 2, 3]], "has more than 2 items"),
    (EITHER, ["x", {}], "must be a number"),
    (EITHER, [[0, 0, 0]], "has more than 2 items"),
]


@pytest.mark.parametrize(("get", "values"), GOOD)
def test_getter_returns_good_values(get: Getter, values: list[object]) -> None:
    for value in values:
        assert get("key", value) == value
        assert get("key", list(value) if isinstance(value, tuple) else value) == value


@pytest.mark.parametrize(("get", "values", "problem"), BAD)
def test_getter_names_key_and_problem(get: Getter, values: list[object], problem: str) -> None:
    for value in values:
        with pytest.raises(FieldError) as caught:
            get("some.key", value)
        assert str(caught.value).startswith(f"some.key: {problem}"), value
        assert caught.value.field == "some.key"


def test_number_is_returned_as_a_float() -> None:
    assert type(NUMBER("key", 1)) is float


def test_parse_takes_null_for_absent_and_ignores_unknown_keys() -> None:
    assert parse(Inner, {"size": 1}) == Inner(1, None)
    assert parse(Inner, {"size": 1, "name": None, "other": object()}) == Inner(1)
    assert parse(Outer, {"inner": {"size": 2}, "many": [{"size": 3}], "on": True}) == Outer(
        Inner(2), (Inner(3),), True
    )
    assert fields.unknown_keys(Inner, {"size": 1, "nmae": 2, "x": 3}) == ["nmae", "x"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, "inner: is missing"),
        ({"inner": None}, "inner: is missing"),
        ({"inner": []}, "inner: must be an object"),
        ({"inner": {"size": 10}}, "inner.size: must be between 0 and 9"),
        ({"inner": {"size": 1}, "many": [{"size": 1}, {}]}, "many[1].size: is missing"),
    ],
)
def test_parse_names_the_dotted_key(data: dict[str, Any], error: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse(Outer, data, "worker.")
    assert str(caught.value) == f"worker.{error}"


def test_dump_returns_plain_data_without_none() -> None:
    value = Outer(Inner(1), (Inner(2, "abc"), Inner(3)))
    assert dump(value) == {
        "inner": {"size": 1},
        "many": [{"size": 2, "name": "abc"}, {"size": 3}],
        "on": False,
    }
    assert dump((1, [Inner(1)], {"a": None}, Inner)) == [1, [{"size": 1}], {"a": None}, Inner]
