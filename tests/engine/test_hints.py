"""The number of tokens that hints get, and the conditions for taking the text with hints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.engine.hints import HOTWORDS_TOKENS, PROMPT_TOKENS, Decoded, Hints, is_better, read_hints

PLAIN = "and then you go into your comfy UI folder again"


def encode(text: str) -> list[int]:
    """A token for each word."""
    return list(range(len(text.split())))


def text(said: str, logprob: float = -0.3, repetition: float = 1.2, end: int = 3000) -> Decoded:
    return Decoded(said, logprob, repetition, end)


@given(st.integers(0, 600), st.integers(0, 600), st.integers(0, 600))
def test_hints_and_previous_text_together_fit(names: int, prompt: int, said: int) -> None:
    hints, warnings = read_hints("a " * names, "b " * prompt, encode)
    room = PROMPT_TOKENS - len(hints.hotwords)
    assert hints.hotwords == tuple(range(names))[:HOTWORDS_TOKENS]
    assert hints.initial_prompt == tuple(range(prompt))[-room:]
    plain, context = hints.split([*hints.initial_prompt, *[700] * said])
    assert len(context) <= PROMPT_TOKENS
    assert plain == [700] * said
    assert len(warnings) == (names > HOTWORDS_TOKENS) + (prompt > room)


def test_warning_names_the_field_and_the_number_of_tokens() -> None:
    _, warnings = read_hints("a " * 300, "b " * 150, encode)
    assert [each.text.partition(" (")[0] for each in warnings] == [
        "hotwords: 111 of 300 tokens are used",
        "initial_prompt: 112 of 150 tokens are used",
    ]


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_empty_hints_are_no_hints(nothing: str | None) -> None:
    assert read_hints(nothing, nothing, encode) == (Hints(), [])


def test_prompt_applies_until_the_text_after_it_fills_the_room() -> None:
    hints = Hints(initial_prompt=(1, 2, 3))
    assert hints.split([1, 2, 3, 9]) == ([9], [1, 2, 3, 9])
    assert hints.split([9, 9]) == ([9, 9], [])
    said = [9] * PROMPT_TOKENS
    assert hints.split([1, 2, 3, *said]) == (said, [])


@pytest.mark.parametrize(
    ("hinted", "taken"),
    [
        (text("and then you go into your ComfyUI folder again", -0.35), True),
        (text("And then you go into your Comfy UI folder, again.", -0.3), True),
        (text("and then you went into your ComfyUI folder again"), False),
        (text("and then you go into your ComfyUI folder again", -0.45), False),
        (text("and then you go into your ComfyUI folder", -0.2), False),
        (text("", -0.1), False),
        (text("ComfyUI ComfyUI ComfyUI ComfyUI", -0.1), False),
        (text("and then you go into your ComfyUI folder again", -0.2, repetition=2.5), False),
        (text("and then you go into your ComfyUI folder again", float("nan")), False),
        (text(PLAIN, end=2960), True),
        (text(PLAIN, end=2600), False),
    ],
)
def test_hints_may_change_their_words_and_nothing_else(hinted: Decoded, taken: bool) -> None:
    assert is_better(text(PLAIN), hinted, frozenset({"comfyui"})) == taken


@pytest.mark.parametrize(
    ("plain", "hinted", "taken"),
    [
        ("turn it off", "Turn it off!", True),
        ("打開電腦", "打开电脑", True),
        ("打開電腦", "打开", False),
    ],
)
def test_hints_may_change_the_style(plain: str, hinted: str, taken: bool) -> None:
    assert is_better(text(plain), text(hinted), frozenset()) == taken
