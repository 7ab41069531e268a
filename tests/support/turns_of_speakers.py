"""A recording of two speakers, as a daemon would answer about it."""

from typing import Any

from tests.support.fake_daemon import Behaviour, answer_with


def _word(start: float, text: str) -> dict[str, Any]:
    return {"start": start, "end": start + 1, "word": text, "probability": 0.9}


def _turn(number: int, start: float, end: float, speaker: int) -> dict[str, Any]:
    return {"id": number, "start": start, "end": end, "text": "", "speaker": speaker}


# " one two" by the first speaker, " three" by the second.
TURNS = answer_with(_turn(1, 0.0, 3.0, 0), _turn(2, 3.0, 6.0, 1))
WORDS = answer_with(
    {
        "id": 1,
        "start": 0.0,
        "end": 5.0,
        "text": " one two three",
        "words": [_word(1.0, " one"), _word(2.0, " two"), _word(4.0, " three")],
    }
)
CONVERSATION: list[Behaviour] = [TURNS, WORDS]
