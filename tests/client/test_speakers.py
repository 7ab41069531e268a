"""Words and speakers, joined by their times."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.client.attempts import JobOptions
from asrd.client.speakers import Speakers, options_after, search_options
from asrd.wire.client_events import Transcript
from asrd.wire.records import Segment, Word


def turns(*found: tuple[float, float, int]) -> list[Segment]:
    return [Segment(i, start, end, "", speaker=who) for i, (start, end, who) in enumerate(found)]


def said(*words: tuple[float, float, str], **more: Any) -> Segment:
    """A segment from 0 to 10 s with these words."""
    made = tuple(Word(start, end, text, 0.9) for start, end, text in words)
    return Segment(7, 0.0, 10.0, "".join(text for *_, text in words), words=made, **more)


WORDS = said((1, 2, " one"), (2, 3, " two"), (4, 5, " three"), tokens=(1, 2, 3), avg_logprob=-0.5)


def test_segment_is_cut_where_the_speaker_changes() -> None:
    first, second = Speakers(turns((0, 3, 0), (3, 6, 1))).label(WORDS)
    assert (first.text, first.start, first.end, first.speaker) == (" one two", 0, 3, 0)
    assert (second.text, second.start, second.end, second.speaker) == (" three", 4, 10, 1)
    assert [word.speaker for word in (first.words or ()) + (second.words or ())] == [0, 0, 1]
    # The tokens are those of the whole; the rest is kept.
    assert (first.tokens, first.avg_logprob, first.id, second.id) == (None, -0.5, 1, 2)


def test_segment_of_one_speaker_is_kept() -> None:
    [found] = Speakers(turns((0, 6, 3))).label(WORDS)
    assert (found.text, found.tokens, found.speaker, found.id) == (WORDS.text, (1, 2, 3), 3, 1)


def test_without_words_a_segment_belongs_to_who_speaks_most_of_it() -> None:
    speakers = Speakers(turns((0, 2, 0), (2, 9, 1)))
    [found] = speakers.label(Segment(4, 0.0, 5.0, " one"))
    assert (found.speaker, found.text) == (1, " one")
    assert speakers.speakers == 2


def test_without_turns_nobody_is_named() -> None:
    [found] = Speakers([]).label(WORDS)
    assert found.speaker is None and found.text == WORDS.text


def test_segments_of_a_transcript_are_numbered() -> None:
    speakers = Speakers(turns((0, 3, 0), (3, 6, 1)))
    speakers.label(WORDS)
    found = speakers.transcript(Transcript("x", segments=(WORDS, WORDS)))
    assert [each.id for each in found.segments] == [1, 2, 3, 4]
    assert found.text == "x"


times = st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda t: (t[0] / 2, sum(t) / 2))


@given(st.lists(st.tuples(times, st.integers(0, 3)), min_size=1, max_size=8), times)
def test_no_turn_suits_a_word_better(
    found: list[tuple[tuple[float, float], int]], word: tuple[float, float]
) -> None:
    """Better: more of the word, else a shorter way to it."""

    def overlap(turn: tuple[float, float]) -> float:
        return min(word[1], turn[1]) - max(word[0], turn[0])

    speakers = Speakers(turns(*((*turn, who) for turn, who in found)))
    [labelled] = speakers.label(Segment(0, *word, " one"))
    best = max(overlap(turn) for turn, _ in found)
    assert labelled.speaker in {who for turn, who in found if overlap(turn) == best}


def test_search_has_the_options_of_the_recording_alone() -> None:
    options: JobOptions = {
        **{"language": "de", "model": "base", "beam_size": 5, "word_timestamps": True},
        **{"job_id": "j", "user": "u", "timeout": 9.0, "audio_track": 1, "channels": 2},
    }
    assert search_options(options, 3) == {
        **{"job_id": "j", "user": "u", "timeout": 9.0, "audio_track": 1, "channels": 2},
        **{"task": "speakers", "num_speakers": 3},
    }


@pytest.mark.parametrize(("seconds", "left"), [(2.0, 7.0), (20.0, 0.001)])
def test_both_jobs_share_the_time(seconds: float, left: float) -> None:
    assert options_after({"timeout": 9.0, "language": "de"}, seconds) == {
        "timeout": left,
        "language": "de",
    }
    assert options_after({"language": "de"}, seconds) == {"language": "de"}
