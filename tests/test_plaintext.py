"""Nothing that commands a terminal gets through."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.plaintext import fit, fit_json, one_line

RISKY = ["\x1b", "\x00", "\r", "\n", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ñandú, Übung, 日本語, 🙂", "plain, ñandú, Übung, 日本語, 🙂"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\x9b31m", "a\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\udc80.wav", "\\udc80.wav"),
        ("tab\tand\nline", "tab\\tand\\nline"),
    ],
)
def test_fit(text: str, shown: str) -> None:
    assert fit(text) == shown


def test_one_line() -> None:
    assert one_line("  a\n b\t\tc\x1b ") == "a b c\\x1b"


@given(st.text(st.sampled_from(["a", "ñ", "\\", '"', *RISKY])))
def test_json_says_the_same_in_safe_characters(text: str) -> None:
    for indent in (False, True):
        shown = fit_json({"text": text}, indent=indent)
        assert json.loads(shown) == {"text": text}
        assert not set(RISKY) - {"\n"} & set(shown)


@given(st.text())
def test_whatever_is_fit_can_be_printed(text: str) -> None:
    shown = fit(text)
    assert shown.encode().decode() == shown
    assert not set(RISKY) & set(shown)
