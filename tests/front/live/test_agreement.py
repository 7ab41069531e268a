"""The words that are committed: none twice, none lost, none that may still change."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.front.live import agreement as agreement_module
from asrd.front.live.agreement import CUT_SECONDS, Agreement, Step
from asrd.wire.records import WINDOW_SECONDS, Segment, Word


def said(text: str, start: float = 0.0, each: float = 0.5) -> list[Word]:
    """Words one after another, each so long."""
    return [
        Word(start + i * each, start + (i + 1) * each, f" {word}", 1.0)
        for i, word in enumerate(text.split())
    ]


def segment(words: list[Word]) -> Segment:
    text = "".join(word.word for word in words)
    start, end = (words[0].start, words[-1].end) if words else (0.0, 0.0)
    return Segment(1, start, end, text, words=tuple(words))


def text(words: list[Word]) -> str:
    return "".join(word.word for word in words).strip()


def hear(agreement: Agreement, words: list[Word], end: float, last: bool = False) -> Step:
    return agreement.hear([segment(words)] if words else [], end, last)


def texts(step: Step) -> tuple[str, str]:
    return text(step.committed), text(step.pending)


def test_two_hypotheses_commit_their_common_prefix() -> None:
    agreement = Agreement()
    assert texts(hear(agreement, said("and so my fell"), 2.0)) == ("", "and so my fell")
    assert texts(hear(agreement, said("and so my fellow americans"), 3.0)) == (
        "and so my",
        "fellow americans",
    )
    assert texts(hear(agreement, said("and so my fellow Americans ask"), 4.0)) == (
        "fellow Americans",
        "ask",
    )


def test_case_and_marks_do_not_count_and_the_newest_are_committed() -> None:
    agreement = Agreement()
    hear(agreement, said("and so, my fellow"), 3.0)
    assert texts(hear(agreement, said("And so my fellow"), 3.0)) == ("And so my fellow", "")


def test_word_at_the_end_of_the_audio_is_not_committed() -> None:
    agreement = Agreement()
    hear(agreement, said("one two"), 1.0)
    assert texts(hear(agreement, said("one two"), 1.3)) == ("one", "two")
    assert texts(hear(agreement, said("one two"), 1.5)) == ("two", "")


def test_last_hypothesis_commits_all() -> None:
    agreement = Agreement()
    hear(agreement, said("one two"), 2.0)
    hear(agreement, said("one two three"), 2.0)
    assert texts(hear(agreement, said("one two free for"), 2.0, last=True)) == ("free for", "")


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.2])
def test_same_word_again_is_neither_lost_nor_doubled(shift: float) -> None:
    """A published implementation drops the second of two equal words."""
    agreement, words = Agreement(), said("go go go black go")
    hear(agreement, words[:2], 0.9)
    assert texts(hear(agreement, words[:3], 1.3)) == ("go", "go go")
    moved = [
        replace(word, start=max(0, word.start + shift), end=word.end + shift) for word in words
    ]
    assert texts(hear(agreement, moved, 4.0)) == ("go go", "black go")
    assert texts(hear(agreement, words, 4.0)) == ("black go", "")


def test_words_that_were_committed_otherwise_are_not_committed_again() -> None:
    """The hypothesis hears the committed words anew: then times decide."""
    agreement = Agreement()
    hear(agreement, said("i am gonna"), 3.0)
    hear(agreement, said("i am gonna"), 3.0)
    words = [*said("i am"), *said("going to", 1.0, 0.25), *said("leave now", 1.5)]
    hear(agreement, words, 4.0)
    assert texts(hear(agreement, words, 4.0)) == ("leave now", "")


def test_long_tail_is_cut_behind_a_committed_segment() -> None:
    agreement = Agreement()
    parts = [said("a b c d", 0, 2.0), said("e f g h", 8, 2.0)]
    segments = [segment(part) for part in parts]
    agreement.hear(segments, CUT_SECONDS)
    assert agreement.begin == 0
    agreement.hear(segments, 15.2)
    assert (agreement.begin, agreement.until) == (8, 14)
    assert agreement.said == " a b c d"
    # The tail begins with words that are committed.
    assert texts(hear(agreement, parts[1], 16.5)) == ("h", "")


def test_tail_of_one_long_segment_is_cut_behind_a_word() -> None:
    agreement, words = Agreement(), said(" ".join(map(str, range(20))), 0, 1.5)
    for end in (24, 24.9, 25.1):
        hear(agreement, words[: int(end / 1.5)], end)
    assert agreement.begin == agreement.until == 24


def test_full_window_commits_without_a_second_hypothesis() -> None:
    agreement, words = Agreement(), said(" ".join(map(str, range(20))), 0, 1.5)
    found = hear(agreement, words, WINDOW_SECONDS)
    assert texts(found) == (" ".join(map(str, range(19))), "19")
    assert agreement.begin == 28.5


def test_silence_is_cut_and_moves_no_word() -> None:
    agreement = Agreement()
    hear(agreement, [], 14.0)
    assert agreement.begin == 0
    hear(agreement, [], 16.0)
    assert agreement.begin == 11
    hear(agreement, said("yes", 20), 23.0)
    assert texts(hear(agreement, said("yes", 20), 24.0)) == ("yes", "")


def test_prompt_is_cut_between_words() -> None:
    agreement = Agreement()
    for i in range(20):
        words = said("abcdefghi " * 4, i * 16, 4.0)
        hear(agreement, words, i * 16 + 16.5)
        hear(agreement, words, i * 16 + 16.5)
    assert 190 <= len(agreement.said) <= 200
    assert set(agreement.said.split()) == {"abcdefghi"}


def test_lying_worker_fills_no_memory() -> None:
    for word, most in (("a", 200), ("a" * 30, 64)):
        agreement = Agreement()
        words = said(f"{word} " * 5000, 0, 0.001)
        assert len(hear(agreement, words, 6.0).pending) == most
        assert len(agreement._pending) == most
        for _ in range(100):
            hear(agreement, words, 6.0)
        assert len(agreement._committed) == most


@given(
    st.lists(st.sampled_from(["go", "no", "left", "right"]), max_size=60),
    st.floats(0.25, 4.0),
    st.randoms(),
)
def test_perfect_recognizer_with_wrong_times_loses_and_doubles_nothing(
    spoken: list[str], step: float, chance: random.Random
) -> None:
    """Times move by up to 0.1 s from hypothesis to hypothesis, and the last word is often wrong."""
    agreement, words = Agreement(), said(" ".join(spoken), 0.0, 0.6)
    end, committed = 0.0, []
    length = 0.6 * len(words)

    def heard(until: float) -> list[Word]:
        inside = [word for word in words if word.start >= agreement.begin - 0.15]
        found = []
        for word in inside:
            if word.end <= until:
                shift = chance.uniform(-0.1, 0.1)
                start = max(agreement.begin, word.start + shift)
                found.append(replace(word, start=start, end=max(start, word.end + shift)))
            elif word.start < until:
                # Half of a word, and not the same one each time.
                half = Word(max(word.start, agreement.begin), until, chance.choice("xyz"), 0.1)
                found.append(half)
        return found

    while end < length:
        end = min(length, end + step, agreement.begin + WINDOW_SECONDS)
        found = hear(agreement, heard(end), end)
        committed += found.committed
        assert end - agreement.begin <= WINDOW_SECONDS
    committed += hear(agreement, heard(length), length, last=True).committed
    assert text(committed).split() == spoken
    times = [time for word in committed for time in (word.start, word.end)]
    assert times == sorted(times)


@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 40), st.floats(0, 40), st.text(max_size=3)).map(
                lambda each: Word(*each, 1.0)
            ),
            max_size=8,
        ),
        max_size=30,
    )
)
def test_any_worker_moves_times_forward_and_the_tail_stays_short(
    hypotheses: list[list[Word]],
) -> None:
    agreement, end, committed = Agreement(), 0.0, []
    for words in hypotheses:
        end = min(end + 3, agreement.begin + WINDOW_SECONDS)
        before = agreement.begin
        committed += hear(agreement, words, end).committed
        assert before <= agreement.begin
        assert end - agreement.begin < WINDOW_SECONDS
    times = [time for word in committed for time in (word.start, word.end)]
    assert times == sorted(times)


def test_full_window_is_known_in_spite_of_rounding() -> None:
    begin = next(i / 1000 for i in range(1, 9999) if i / 1000 + 30 - i / 1000 < 30)
    agreement = Agreement()
    agreement.begin = begin
    committed, _ = hear(agreement, said("one two", begin), begin + WINDOW_SECONDS)
    assert text(committed) == "one two"


def test_one_empty_hypothesis_does_not_drop_pending_words() -> None:
    agreement = Agreement()
    hear(agreement, said("one", 2.0), 16.0)
    hear(agreement, [], 17.0)
    assert agreement.begin == 0.0
    hear(agreement, [], 18.0)
    assert agreement.begin == 13.0


def test_search_for_repeated_words_looks_only_at_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long last answer must not take the square of its length."""
    lengths: list[int] = []
    same = agreement_module._common_end

    def counted(known: list[str], heard: list[str]) -> int:
        lengths.append(len(heard))
        return same(known, heard)

    monkeypatch.setattr(agreement_module, "_common_end", counted)
    hear(Agreement(), said("one " * 50), 25.0, last=True)
    assert max(lengths) == 5
