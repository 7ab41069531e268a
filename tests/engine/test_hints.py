"""How much room hints get, and when the text with hints is taken."""

from types import SimpleNamespace
from typing import Any

import pytest
from faster_whisper.transcribe import TranscriptionOptions, WhisperModel
from hypothesis import given
from hypothesis import strategies as st

from asrd.engine.hints import (
    HOTWORDS_TOKENS,
    PROMPT_TOKENS,
    Hinted,
    Hints,
    _kept,
    _Text,
    is_better,
    read_hints,
)
from asrd.errors import WarningCode

BEGIN = 1000  # the first timestamp
PLAIN = "and then you go into your comfy UI folder again"


def encode(text: str) -> list[int]:
    """A token for each word."""
    return list(range(len(text.split())))


def text(said: str, logprob: float = -0.3, repetition: float = 1.2, end: int = 1500) -> _Text:
    return _Text(said, logprob, repetition, end)


# --- the budget -----------------------------------------------------------------------------------


@given(st.integers(0, 600), st.integers(0, 600), st.integers(0, 600))
def test_hints_and_previous_text_together_fit(names: int, prompt: int, said: int) -> None:
    hints, warnings = read_hints("a " * names, "b " * prompt, encode)
    assert len(hints.hotwords) == min(names, HOTWORDS_TOKENS)
    assert len(hints.hotwords) + len(hints.initial_prompt) <= PROMPT_TOKENS
    plain, before = hints.split([*hints.initial_prompt, *[7] * said])
    assert len(before) <= PROMPT_TOKENS
    assert plain == [7] * said
    cut = names > HOTWORDS_TOKENS, prompt > PROMPT_TOKENS - len(hints.hotwords)
    assert len(warnings) == sum(cut)


def test_a_warning_names_the_field_and_what_is_used() -> None:
    _, warnings = read_hints("a " * 300, "b " * 150, encode)
    assert [(each.code, each.text.partition(" (")[0]) for each in warnings] == [
        (WarningCode.HINTS_CUT, "hotwords: 111 of 300 tokens are used"),
        (WarningCode.HINTS_CUT, "initial_prompt: 112 of 150 tokens are used"),
    ]


def test_the_first_hotwords_and_the_end_of_the_prompt_are_kept() -> None:
    hints, _ = read_hints("a " * 300, "b " * 300, encode)
    assert hints.hotwords == tuple(range(111))
    assert hints.initial_prompt == tuple(range(300 - 112, 300))


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_no_hints_are_no_hints(nothing: str | None) -> None:
    assert read_hints(nothing, nothing, encode) == (Hints(), [])
    assert not Hints()


def test_a_prompt_counts_until_the_text_after_it_fills_the_room() -> None:
    hints = Hints(initial_prompt=(1, 2, 3))
    assert hints.split([1, 2, 3, 9]) == ([9], [1, 2, 3, 9])
    assert hints.split([9, 9]) == ([9, 9], [])
    said = [9] * PROMPT_TOKENS
    assert hints.split([1, 2, 3, *said]) == (said, [])


# --- which text is taken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hinted", "taken"),
    [
        (text("and then you go into your ComfyUI folder again", -0.35), True),
        (text("And then you go into your Comfy UI folder, again.", -0.3), True),
        (text("and then you went into your ComfyUI folder again"), False),
        (text("and then you go into your to comfy UI folder again"), False),
        (text("and then you go into your ComfyUI folder again", -0.45), False),
        (text("and then you go into your ComfyUI folder", -0.2), False),
        (text("and then you go into your ComfyUI folder again ComfyUI", -0.2), False),
        (text("", -0.1), False),
        (text("ComfyUI ComfyUI ComfyUI ComfyUI", -0.1), False),
        (text("and then you go into your ComfyUI folder again", -0.2, repetition=2.5), False),
        (text("and then you go into your ComfyUI folder again", -1.1), False),
    ],
)
def test_hints_may_change_words_and_nothing_else(hinted: _Text, taken: bool) -> None:
    assert is_better(text(PLAIN), hinted, frozenset({"comfyui"})) == taken


def test_hints_may_not_skip_the_end_of_a_window() -> None:
    assert is_better(text(PLAIN, end=1300), text(PLAIN, end=1320), frozenset())
    assert not is_better(text(PLAIN, end=1300), text(PLAIN, end=1500), frozenset())


def test_hints_may_change_the_style() -> None:
    assert is_better(text("turn it off"), text("Turn it off!"), frozenset())
    assert is_better(text("打開電腦"), text("打开电脑"), frozenset())
    assert not is_better(text("打開電腦"), text("打开"), frozenset())


@given(st.lists(st.integers(BEGIN - 3, BEGIN + 1500), max_size=12))
def test_the_next_window_begins_where_faster_whisper_seeks(tokens: list[int]) -> None:
    model: Any = SimpleNamespace(time_precision=0.02, input_stride=2)
    tokenizer: Any = SimpleNamespace(timestamp_begin=BEGIN)
    segments, seek, _ = WhisperModel._split_segments_by_timestamps(
        model, tokenizer, tokens, 0.0, 3000, 30.0, 0
    )
    kept = [token for segment in segments for token in segment["tokens"]]
    assert _kept(tokens, BEGIN) == (kept, seek / 2)


# --- the decoder ----------------------------------------------------------------------------------


class Model:
    """Answers each prompt with the next of `texts`."""

    def __init__(self, *texts: str) -> None:
        self.calls: list[tuple[list[int], Any]] = []
        self._texts = iter(texts)

    def get_prompt(self, tokenizer: Any, previous: list[int], **options: Any) -> list[int]:
        return [*previous, *tokenizer.sot_sequence]

    def generate_with_fallback(
        self, encoded: Any, prompt: list[int], tokenizer: Any, options: Any
    ) -> Any:
        self.calls.append((prompt, options))
        said = next(self._texts)
        return SimpleNamespace(sequences_ids=[list(map(ord, said))]), -0.3, 0.0, 1.2


class Letters:
    sot_prev, sot_sequence, timestamp_begin = -1, (-2, -3), 1 << 21

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def decode(model: Model, hints: Hints, previous: list[int]) -> str:
    hinted, tokenizer = Hinted(model, hints), Letters()
    options = TranscriptionOptions(**dict.fromkeys(TranscriptionOptions.__annotations__))
    options.temperatures = [0.0, 0.2]
    prompt = hinted.get_prompt(tokenizer, previous, hotwords=None)
    found = hinted.generate(None, prompt, tokenizer, options)
    return tokenizer.decode(found[0].sequences_ids[0])


def test_a_window_is_decoded_without_hints_and_then_once_with_them() -> None:
    model = Model("comfy UI folder", "ComfyUI folder")
    hints = Hints((4, 5), (1, 2), frozenset({"comfyui"}))
    assert decode(model, hints, [1, 2, 9]) == "ComfyUI folder"
    (plain, with_all), (hinted, once) = model.calls
    assert plain == [9, -2, -3]
    assert hinted == [-1, 4, 5, 1, 2, 9, -2, -3]
    assert (with_all.temperatures, once.temperatures) == ([0.0, 0.2], [0.0])
    assert with_all.max_new_tokens is None
    # Room for somewhat more than the text without hints, not for a loop.
    assert 15 < once.max_new_tokens < 45


@pytest.mark.parametrize("bad", ["", "light " * 30])
def test_an_empty_text_or_a_loop_is_not_taken(bad: str) -> None:
    assert decode(Model("turn on the light", bad), Hints((4,)), []) == "turn on the light"


def test_where_nobody_speaks_hints_are_not_tried() -> None:
    model = Model("")
    assert decode(model, Hints((4,)), []) == ""
    assert len(model.calls) == 1


def test_the_prompt_with_hints_leaves_room_for_the_text() -> None:
    model = Model("x" * 400, "x" * 400)
    hints, _ = read_hints("a " * 4000, "b " * 4000, encode)
    decode(model, hints, [*hints.initial_prompt, *[9] * 500])
    prompt, options = model.calls[1]
    assert len(prompt) + options.max_new_tokens <= 448
    assert options.max_new_tokens >= 220
