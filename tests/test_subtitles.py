"""Subtitles and the places where they are broken."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.formats import make_writer
from asrd.subtitles import (
    LINE_WIDTH,
    LINES,
    LONGEST,
    SHORTEST,
    Cue,
    Readable,
    Rules,
    WhisperRules,
    cells,
    words_of,
)
from asrd.wire.client_events import Transcript
from asrd.wire.records import Segment, Word


def said(text: str, start: float = 0.0, step: float = 0.4) -> Segment:
    """A segment with a word each `step` seconds."""
    parts = [f" {part}" for part in text.split()]
    words = tuple(
        Word(start + i * step, start + (i + 1) * step, part, 0.9) for i, part in enumerate(parts)
    )
    return Segment(0, start, start + len(parts) * step, "".join(parts), words=words)


def cues(*segments: Segment) -> list[Cue]:
    layout = Readable()
    return [cue for segment in segments for cue in layout.add(segment)] + layout.end()


def texts(found: list[Cue]) -> list[str]:
    return ["\n".join("".join(line).strip() for line in cue.lines) for cue in found]


SPEECH = (
    "And so, my fellow Americans, ask not what your country can do for you. "
    "Ask what you can do for your country, and then go home."
)


def test_cues_end_with_sentences_and_lines_with_clauses() -> None:
    assert texts(cues(said(SPEECH, step=0.25))) == [
        "And so, my fellow Americans,\nask not what your country can do for you.",
        "Ask what you can do for your country,\nand then go home.",
    ]


def test_short_cue_stays_for_a_second_but_not_into_the_next_one() -> None:
    alone, pressed, after = said("Yes.", 0.0), said("No.", 5.0), said("Well, perhaps so.", 5.5)
    times = [(cue.start, cue.end) for cue in cues(alone, pressed, after)]
    assert times[:2] == [(0.0, 1.0), (5.0, 5.5)]


def test_segment_without_words_is_broken_by_its_letters() -> None:
    found = cues(Segment(0, 10.0, 20.0, f" {SPEECH}"))
    assert len(found) == 2
    assert found[0].start == 10.0
    assert found[-1].end == pytest.approx(20.0)
    assert 15.0 < found[1].start < 17.0


def test_wide_letters_take_two_cells_and_may_be_broken_anywhere() -> None:
    found = cues(Segment(0, 0.0, 6.0, "日" * 60))
    assert "".join(texts(found)).replace("\n", "") == "日" * 60
    assert all(len(line) <= LINE_WIDTH // 2 for cue in found for line in cue.lines)


_parts = st.lists(
    st.tuples(
        st.from_regex(r" ?[a-z]{1,20}[.,]?", fullmatch=True),
        st.floats(0.05, 2.0),
        st.floats(0.0, 2.0),
    ),
    max_size=40,
)


@given(st.lists(_parts, max_size=3))
def test_cues_have_all_words_and_keep_the_bounds(
    parts: list[list[tuple[str, float, float]]],
) -> None:
    segments, now = [], 0.0
    for spoken in parts:
        words = []
        for text, length, pause in spoken:
            words.append(Word(now, now + length, text, 0.9))
            now += length + pause
        if words:
            text = "".join(word.word for word in words)
            segments.append(Segment(0, words[0].start, now, text, words=tuple(words)))
    found = cues(*segments)
    expected = [word.word for segment in segments for word in words_of(segment)]
    assert [word for cue in found for line in cue.lines for word in line] == expected
    for cue, after in zip(found, [*found[1:], None], strict=False):
        assert len(cue.lines) <= LINES
        assert all(cells("".join(line).strip()) <= LINE_WIDTH for line in cue.lines)
        assert cue.end - cue.start <= LONGEST + 1e-6
        free = after is None or after.start - cue.start > SHORTEST
        assert cue.end - cue.start >= SHORTEST - 1e-6 or not free


@pytest.mark.parametrize(
    ("rules", "shown"),
    [
        (Rules(words=2), ["one two", "three", "four"]),
        (Rules(width=9), ["one two\nthree", "four"]),
        (Rules(width=9, count=1), ["one two", "three", "four"]),
        (Rules(width=40, count=1), ["one two three", "four"]),
        (Rules(count=1), ["one two three", "four"]),
    ],
)
def test_each_rule_of_whisper(rules: Rules, shown: list[str]) -> None:
    layout = WhisperRules(rules)
    segments = said("one two three"), said("four", 10.0)
    found = [cue for segment in segments for cue in layout.add(segment)] + layout.end()
    assert texts(found) == shown


def test_words_are_highlighted_in_turn_and_markup_is_escaped() -> None:
    layout = partial(WhisperRules, Rules(highlight=True))
    talk = Transcript("", segments=(said("a <b>"),))
    assert make_writer("vtt", "", layout).whole(talk) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:00.400\n<u>a</u> &lt;b&gt;\n\n"
        "00:00:00.400 --> 00:00:00.800\na <u>&lt;b&gt;</u>\n\n"
    )


def test_each_channel_has_lines_of_its_own() -> None:
    layout = partial(WhisperRules, Rules(width=40, count=1))
    one = Segment(0, 0.0, 1.0, " one", channel=0)
    two = Segment(1, 0.5, 1.5, " two", channel=1)
    more = Segment(2, 1.0, 2.0, " more", channel=0)
    assert make_writer("srt", "", layout).whole(Transcript("", segments=(one, two, more))) == (
        "1\n00:00:00,000 --> 00:00:02,000\n[channel 1] one more\n\n"
        "2\n00:00:00,500 --> 00:00:01,500\n[channel 2] two\n\n"
    )
