"""faster-whisper's segments as plain data; tests/engine/test_whisper.py tests the rest."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from asrd.engine.prepared import finite, make_segment
from asrd.wire.fields import dump, parse
from asrd.wire.records import Segment


def test_nan_and_infinity_become_0() -> None:
    assert [finite(value) for value in (math.nan, math.inf, -math.inf, 0.5)] == [0.0, 0.0, 0.0, 0.5]


def found(start: float, end: float, *words: tuple[float, float], probability: float = 0.5) -> Any:
    """A segment of faster-whisper."""
    return SimpleNamespace(
        id=1, start=start, end=end, text=" a", avg_logprob=-math.inf, no_speech_prob=math.nan,
        temperature=0.0, compression_ratio=1.0,
        words=[
            SimpleNamespace(start=first, end=last, word=" a", probability=probability)
            for first, last in words
        ],
    )  # fmt: skip


def test_segment_of_an_overflowed_model_is_valid() -> None:
    made = make_segment(found(0.0, 1.0, (0.1, 0.2), probability=math.nan), 10.0)
    assert made.words is not None and made.words[0].probability == 0.0
    assert parse(Segment, dump(made)) == made


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.0, 1.0), (0.0, 0.1)),
        ((0.5, 1.0), (0.1, 0.1)),
        ((-0.2, -0.1), (0.0, 0.0)),
        ((0.08, 0.05), (0.05, 0.05)),
        ((0.02, 0.08), (0.02, 0.08)),
        ((math.nan, math.inf), (0.0, 0.0)),
    ],
)
def test_times_are_in_order_and_within_the_recording(
    given: tuple[float, float], expected: tuple[float, float]
) -> None:
    made = make_segment(found(*given, given), 0.1)
    assert made.words is not None
    assert (made.start, made.end) == (made.words[0].start, made.words[0].end) == expected


def test_no_time_is_rounded_past_the_end() -> None:
    assert make_segment(found(0.0, 2.0), 1.0009).end == 1.0


def test_segment_contains_its_words() -> None:
    made = make_segment(found(28.72, 32.0, (28.66, 28.96), (31.0, 32.02)), 60.0)
    assert (made.start, made.end) == (28.66, 32.02)
