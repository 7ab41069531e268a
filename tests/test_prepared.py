"""What becomes of faster-whisper's segments; tests/test_engine.py has the rest."""

import math
from types import SimpleNamespace

from asrd.fields import dump, parse
from asrd.records import Segment
from asrd.worker.prepared import _segment, finite


def test_what_is_no_number_is_0() -> None:
    assert [finite(value) for value in (math.nan, math.inf, -math.inf, 0.5)] == [0.0, 0.0, 0.0, 0.5]


def test_a_segment_of_a_model_that_overflowed_is_one_that_a_client_takes() -> None:
    word = SimpleNamespace(start=0.1, end=0.2, word=" a", probability=math.nan)
    found = SimpleNamespace(
        id=1, start=0.0, end=1.0, text=" a", words=[word], avg_logprob=-math.inf,
        no_speech_prob=math.nan, temperature=0.0, compression_ratio=1.0,
    )  # fmt: skip
    made = _segment(found)
    assert made.words is not None and made.words[0].probability == 0.0
    assert parse(Segment, dump(made)) == made
