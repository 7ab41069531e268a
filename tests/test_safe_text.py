"""Safe text commands no terminal and forges no line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.safe_text import escape, one_line, quoted, safe_json, transcript_line

RISKY = ["\x1b", "\x00", "\r", "\n", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ñandú, Übung, 日本語, 🙂", "plain, ñandú, Übung, 日本語, 🙂"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\x9b31m", "a\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200fb\u200ec\u061cd", "a\\u200fb\\u200ec\\u061cd"),
        ("\udc80.wav", "\\udc80.wav"),
        ("tab\tand\nline", "tab\\tand\\nline"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_one_line_has_single_spaces() -> None:
    assert one_line("  a\n b\t\tc\x1b ") == "a b c\\x1b"


def test_quotes_and_backslashes_are_escaped_in_quoted_text() -> None:
    assert quoted('a "b" \\c\n') == r'"a \"b\" \\c\\n"'


@given(st.text(st.sampled_from(["a", "ñ", "\\", '"', *RISKY])))
def test_json_keeps_the_value_in_safe_characters(text: str) -> None:
    for indent in (None, 2):
        shown = safe_json({"text": text}, indent=indent)
        assert json.loads(shown) == {"text": text}
        assert not set(RISKY) - {"\n"} & set(shown)


@given(st.text())
def test_escaped_text_can_be_printed(text: str) -> None:
    shown = escape(text)
    assert shown.encode().decode() == shown
    assert not set(RISKY) & set(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" \u05e9\u05dc\u05d5\u05dd\u200f! ", "\u05e9\u05dc\u05d5\u05dd\u200f!"),
        ("\u202babc", "\u202babc\u202c"),
        ("\u202babc\u202c", "\u202babc\u202c"),
        ("\u2067a\u202bb\u2069c", "\u2067a\u202bb\u2069c"),
        ("\u202b\u2067a", "\u202b\u2067a\u2069\u202c"),
        ("\u202b\u2067a\u202c", "\u202b\u2067a\u202c\u2069\u202c"),
        ("a\u2069\u202c", "a\u2069\u202c"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", None),
        ("\u0915\u094d\u200d\u0937", None),
        ("\U0001f469\u200d\U0001f4bb \u2764\ufe0f", None),
        ("e\u0301 co\xadop", None),
        ("Bonjour\xa0!", None),
        ("\u6771\u4eac\u3000\u5927\u962a", None),
        ("a\r\n b\u2028c\u2029d\x85e\tf", "a b c d e f"),
        ("\x1b[2J\x9b31m\x00\x7f\udc80", "\\x1b[2J\\x9b31m\\x00\\x7f\\udc80"),
        ("\u202b\u200f \xa0", ""),
    ],
)
def test_transcript_keeps_the_marks_of_its_language(text: str, shown: str | None) -> None:
    assert transcript_line(text) == (text if shown is None else shown)


CONTROLS = [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"]


@given(
    st.text() | st.text(st.sampled_from(["a", " ", *CONTROLS, *map(chr, range(0x2028, 0x206A))]))
)
def test_transcript_never_commands_a_terminal(text: str) -> None:
    shown = transcript_line(text)
    assert shown.encode().decode() == shown
    assert not set(CONTROLS) & set(shown)
    assert transcript_line(shown) == shown
