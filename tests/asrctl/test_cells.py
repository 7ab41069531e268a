"""The width of text on a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.asrctl.cells import cells, cut, cut_start, ljust


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("talk.wav", 8),
        ("\u4f1a\u8b70\uff01", 6),
        ("\ud55c", 2),
        ("\u1112\u1161\u11ab", 2),
        ("e\u0301", 1),
        ("a\u200db\u200c\u200f", 2),
        ("\xad", 1),
        ("\U0001f642", 2),
        ("\u2764\ufe0f", 2),
    ],
)
def test_width_in_cells(text: str, width: int) -> None:
    assert cells(text) == width


def test_ljust_pads_to_cells() -> None:
    assert [ljust(text, 4) + "|" for text in ("ab", "\u4f1a", "abcde")] == [
        "ab  |",
        "\u4f1a  |",
        "abcde|",
    ]


def test_cuts_never_split_a_character() -> None:
    assert cut("\u4f1a\u8b70", 3) == "\u4f1a"
    assert cut("ae\u0301x", 2) == "ae\u0301"
    assert cut_start("\u4f1a\u8b70.wav", 8) == "\u4f1a\u8b70.wav"
    assert cut_start("\u4f1a\u8b70.wav", 7) == "\u2026\u8b70.wav"
    assert cut_start("\u4f1a\u8b70.wav", 6) == "\u2026.wav"
    assert cut_start("xe\u0301b", 2) == "\u2026b"


@given(st.text(st.characters() | st.sampled_from("\u4f1a\u0301\u200d")), st.integers(0, 20))
def test_every_cut_fits(text: str, width: int) -> None:
    assert cells(cut(text, width)) <= width
    assert cells(cut_start(text, width)) <= width
    assert text.startswith(cut(text, width))
