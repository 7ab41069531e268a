"""Subtitles of the same words, by asrctl and by the real writers of its peers."""

import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrd.formats import make_writer
from asrd.subtitles import Rules, WhisperRules, Whole
from asrd.wire.client_events import Transcript
from asrd.wire.fields import dump
from asrd.wire.records import Segment, Word
from tests.support import peers

pytestmark = pytest.mark.peers

# What Whisper's words look like: a space before most, with punctuation. (asrctl escapes markup,
# and the peers do not: they write invalid WebVTT for a `<`.)
_texts = st.from_regex(r" ?[a-zé日]{1,12}[.,?]?", fullmatch=True)
_steps = st.integers(1, 4000)
_words = st.lists(st.tuples(_texts, _steps, _steps | st.just(0)), min_size=1, max_size=14)
_optional = st.none() | st.integers(1, 50)
_rules = st.builds(Rules, _optional, st.none() | st.integers(1, 4), _optional, st.booleans())


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    segments: list[Segment] = []
    now = 0
    for index, spoken in enumerate(draw(st.lists(_words, max_size=5))):
        words = []
        for text, length, pause in spoken:
            words.append(Word(now / 1000, (now + length) / 1000, text, 0.5))
            now += length + pause
        text = "".join(word.word for word in words)
        segments.append(Segment(index, words[0].start, words[-1].end, text, words=tuple(words)))
    return Transcript("", segments=tuple(segments))


def theirs(writers: Any, format_: str, transcript: Transcript, rules: Rules) -> str:
    options = {
        "max_line_width": rules.width,
        "max_line_count": rules.count,
        "max_words_per_line": rules.words,
        "highlight_words": rules.highlight,
    }
    out = io.StringIO()
    made = writers.get_writer(format_, ".")
    made.write_result({"segments": [dump(s) for s in transcript.segments]}, out, options)
    # Whisper leaves out the hours of WebVTT where they are 0; players accept both.
    return re.sub(r"(?m)(^|--> )(\d\d:\d\d\.)", r"\g<1>00:\2", out.getvalue())


def ours(format_: str, transcript: Transcript, rules: Rules) -> str:
    layout = partial(WhisperRules, rules)
    return make_writer(format_, "", layout).whole(transcript)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["srt", "vtt"]), transcripts(), _rules)
def test_rules_give_the_subtitles_of_whisper(
    programs: Path, format_: str, transcript: Transcript, rules: Rules
) -> None:
    writers = peers.load(programs / "whisper" / "utils.py")
    expected = theirs(writers, format_, transcript, rules)
    assert ours(format_, transcript, rules) == expected


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["srt", "vtt"]), transcripts(), _rules)
def test_rules_give_the_subtitles_of_whisper_ctranslate2(
    programs: Path, format_: str, transcript: Transcript, rules: Rules
) -> None:
    if not transcript.segments or (rules.width and rules.count and not rules.words):
        # It fails without segments. It joins segments only with all three rules.
        return
    writers = peers.load(programs / "whisper_ctranslate2" / "writers.py")
    expected = theirs(writers, format_, transcript, rules)
    assert ours(format_, transcript, rules) == expected


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(["txt", "tsv"]), transcripts())
def test_text_and_tables_are_those_of_both(
    programs: Path, format_: str, transcript: Transcript
) -> None:
    own = make_writer(format_, "", Whole).whole(transcript)
    for path in ("whisper/utils.py", "whisper_ctranslate2/writers.py"):
        assert own == theirs(peers.load(programs / path), format_, transcript, Rules())
