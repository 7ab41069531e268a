"""Each getter lets through what it says and names the key of what it refuses."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.errors import FieldError
from asrd.wire.fields import (
    choice,
    dump,
    either,
    field,
    flag,
    identifier,
    integer,
    mapping,
    nested,
    number,
    parse,
    sequence,
    string,
    unknown_keys,
)


@dataclass(frozen=True)
class Inner:
    size: int = field(integer(0, 9))
    name: str | None = field(string(3), None)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(nested(Inner))
    many: tuple[Inner, ...] = field(sequence(nested(Inner), 2), ())
    on: bool = field(flag, False)


NOT_STRINGS = [1, 1.5, True, [], {}, b"x"]
NOT_NUMBERS = ["1", True, False, [], {}, b"1"]

GOOD: list[tuple[Callable[[str, object], Any], list[object]]] = [
    (string(3), ["", "abc", "äöü", "\n"]),
    (identifier(3), ["a", "a-b", "äöü"]),
    (choice("a", "b"), ["a", "b"]),
    (integer(-1, 5), [-1, 0, 5]),
    (number(0, 2), [0, 2, 0.5, 1e-300]),
    (flag, [True, False]),
    (mapping, [{}, {"a": 1}]),
    (sequence(integer(0, 9), 2), [(), (1, 2)]),
    (either(number(0, 1), sequence(number(0, 1), 2)), [0.5, (0.5, 1.0), ()]),
]

BAD: list[tuple[Callable[[str, object], Any], list[object], str]] = [
    (string(3), NOT_STRINGS, "must be a string"),
    (string(3), ["abcd"], "is longer than 3 characters"),
    (identifier(3), NOT_STRINGS, "must be a string"),
    (identifier(3), ["abcd"], "is longer than 3 characters"),
    (
        identifier(9),
        ["", " ", "a b", "a\n", "\x1b[m", "\u200b", "a\u2028", "\u3000"],
        "must be a non-empty printable string without spaces",
    ),
    (choice("a", "b"), ["c", "A", "", 1, ["a"], {"a": 1}], "must be one of a, b"),
    (integer(-1, 5), [*NOT_NUMBERS, 1.0, math.nan], "must be an integer"),
    (integer(-1, 5), [-2, 6, 1 << 70], "must be between -1 and 5"),
    (number(0, 2), NOT_NUMBERS, "must be a number"),
    (number(0, 2), [-0.1, 2.1, math.nan, math.inf, -math.inf, 1 << 2000], "must be between 0 and"),
    (flag, [0, 1, "true", [], None], "must be true or false"),
    (mapping, [[], "x", 1, True], "must be an object"),
    (sequence(integer(0, 9), 2), ["12", 1, {}, True], "must be a list"),
    (sequence(integer(0, 9), 2), [[1, 2, 3]], "has more than 2 items"),
    (either(number(0, 1), sequence(number(0, 1), 2)), ["x", {}], "must be a number"),
    (either(number(0, 1), sequence(number(0, 1), 2)), [[0, 0, 0]], "has more than 2 items"),
]


@pytest.mark.parametrize(
    ("get", "value"), [(get, value) for get, values in GOOD for value in values]
)
def test_good(get: Callable[[str, object], Any], value: object) -> None:
    found = get("key", value)
    assert found == value
    assert get("key", list(value) if isinstance(value, tuple) else value) == value


@pytest.mark.parametrize(
    ("get", "value", "problem"),
    [(get, value, problem) for get, values, problem in BAD for value in values],
)
def test_bad(get: Callable[[str, object], Any], value: object, problem: str) -> None:
    with pytest.raises(FieldError) as caught:
        get("some.key", value)
    assert str(caught.value).startswith(f"some.key: {problem}")
    assert caught.value.field == "some.key"


def test_a_number_is_told_as_a_float() -> None:
    assert type(number(0, 2)("key", 1)) is float


def test_parse_fills_defaults_and_takes_null_for_absent() -> None:
    assert parse(Inner, {"size": 1}) == Inner(1, None)
    assert parse(Inner, {"size": 1, "name": None, "other": object()}) == Inner(1)
    assert parse(Outer, {"inner": {"size": 2}, "many": [{"size": 3}], "on": True}) == Outer(
        Inner(2), (Inner(3),), True
    )


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, "inner: is missing"),
        ({"inner": None}, "inner: is missing"),
        ({"inner": []}, "inner: must be an object"),
        ({"inner": {}}, "inner.size: is missing"),
        ({"inner": {"size": 10}}, "inner.size: must be between 0 and 9"),
        ({"inner": {"size": 1}, "many": [{"size": 1}, {}]}, "many[1].size: is missing"),
        ({"inner": {"size": 1}, "many": [{"size": 1}, 7]}, "many[1]: must be an object"),
        ({"inner": {"size": 1}, "on": "yes"}, "on: must be true or false"),
    ],
)
def test_parse_names_the_dotted_key(data: dict[str, Any], error: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse(Outer, data)
    assert str(caught.value) == error
    assert caught.value.field == error.split(": ")[0]


def test_parse_takes_a_prefix() -> None:
    with pytest.raises(FieldError, match=r"worker\.size: is missing"):
        parse(Inner, {}, "worker.")


def test_unknown_keys() -> None:
    assert unknown_keys(Inner, {"size": 1, "nmae": 2, "x": 3}) == ["nmae", "x"]


def test_dump_gives_plain_data_without_what_is_none() -> None:
    value = Outer(Inner(1), (Inner(2, "abc"), Inner(3)))
    assert dump(value) == {
        "inner": {"size": 1},
        "many": [{"size": 2, "name": "abc"}, {"size": 3}],
        "on": False,
    }
    assert dump((1, [Inner(1)], {"a": None}, Inner)) == [1, [{"size": 1}], {"a": None}, Inner]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inner", "many", "on", "size", "name"]), inner, max_size=4
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["inner", "many", "on", "size", "name"]), JSON))
def test_anything_parses_or_is_a_field_error(data: dict[str, Any]) -> None:
    for cls in (Inner, Outer):
        try:
            value = parse(cls, data)
        except FieldError as error:
            assert error.field.split(".")[0].split("[")[0] in cls.__dataclass_fields__
        else:
            assert parse(cls, dump(value)) == value
