"""The end of speech, from what the VAD finds in one piece of the stream after another."""

from asrd.front.live.end_of_speech import EndOfSpeech
from asrd.wire.records import Segment


def speech(*times: tuple[float, float]) -> list[Segment]:
    return [Segment(i, start, end, "") for i, (start, end) in enumerate(times, 1)]


def test_silence_counts_behind_speech_only() -> None:
    end = EndOfSpeech(0.5)
    assert not end.hear([], 0, 10)
    assert not end.hear(speech((1, 2)), 8, 10)
    assert not end.hear([], 8.0, 10.4)
    assert end.hear([], 8.0, 10.5)


def test_speech_that_goes_on_ends_nothing() -> None:
    end = EndOfSpeech(0.5)
    assert not end.hear(speech((0, 1), (1.6, 2)), 0, 2)
    assert not end.hear(speech((0, 1.2)), 1.0, 2.4)
    assert end.hear(speech((0, 1.2)), 1.0, 2.7)


def test_each_piece_begins_a_little_before_the_last_one_ended() -> None:
    end = EndOfSpeech(0.5)
    assert end.begin == 0
    end.hear([], 0, 1)
    assert end.begin == 0
    end.hear([], 0, 5)
    assert (end.begin, end.heard) == (3, 5)


def test_pause_longer_than_a_piece_is_measured() -> None:
    end = EndOfSpeech(60)
    end.hear(speech((0, 1)), 0, 1)
    assert not end.hear([], 59, 60.9)
    assert end.hear([], 59, 61)
