"""Text, JSON and subtitles of a transcript."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.formats import FORMATS
from asrd.wire.client_events import Transcript
from asrd.wire.records import JobWarning, Segment, Word


def render(format: str, name: str, transcript: Transcript) -> str:
    return FORMATS[format](name).whole(transcript)


def spoken(*segments: tuple[float, float, str]) -> Transcript:
    return Transcript(
        " ".join(text for _, _, text in segments),
        segments=tuple(Segment(i, *segment) for i, segment in enumerate(segments)),
    )


TALK = spoken((0.0, 1.25, " Hello you."), (1.25, 3661.5, " A & B <i>--> C\x1b[2J "))


@pytest.mark.parametrize(
    ("format", "shown"),
    [
        ("txt", "Hello you.\nA & B <i>--> C\\x1b[2J\n"),
        (
            "srt",
            "1\n00:00:00,000 --> 00:00:01,250\nHello you.\n\n"
            "2\n00:00:01,250 --> 01:01:01,500\nA & B <i>-> C\\x1b[2J\n\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n"
            "00:00:00.000 --> 00:00:01.250\nHello you.\n\n"
            "00:00:01.250 --> 01:01:01.500\nA &amp; B &lt;i&gt;--&gt; C\\x1b[2J\n\n",
        ),
    ],
)
def test_each_format(format: str, shown: str) -> None:
    assert render(format, "a.wav", TALK) == shown


def test_direction_marks_of_a_transcript_are_kept() -> None:
    talk = spoken((0.0, 1.0, "\u202b\u05e9\u05dc\u05d5\u05dd"), (1.0, 2.0, "\u05d4\u200f!"))
    first, second = "\u202b\u05e9\u05dc\u05d5\u05dd\u202c", "\u05d4\u200f!"
    assert render("txt", "a.wav", talk) == f"{first}\n{second}\n"
    for format in ("srt", "vtt"):
        assert [text for *_, text in _CUE.findall(render(format, "a.wav", talk))] == [first, second]
    line = render("json", "\u202b\x1b.wav", talk)
    assert json.loads(line)["segments"][0]["text"] == talk.segments[0].text
    assert json.loads(line)["file"] == "\u202b\x1b.wav"


CALL = Transcript(
    "",
    segments=(
        Segment(0, 0.0, 2.0, " Hello <you>?", channel=0),
        Segment(1, 1.5, 2.5, "more", channel=0),
        Segment(2, 0.5, 1.0, "yes", channel=1),
        Segment(3, 1.75, 3.0, "bye", channel=1),
    ),
)


def test_split_channels_are_labelled_and_ordered_by_time() -> None:
    assert render("txt", "a.wav", CALL) == (
        "[channel 1] Hello <you>?\n[channel 2] yes\n[channel 1] more\n[channel 2] bye\n"
    )
    assert render("srt", "a.wav", CALL) == (
        "1\n00:00:00,000 --> 00:00:02,000\n[channel 1] Hello <you>?\n\n"
        "2\n00:00:00,500 --> 00:00:01,000\n[channel 2] yes\n\n"
        "3\n00:00:01,750 --> 00:00:03,000\n[channel 2] bye\n\n"
        "4\n00:00:02,000 --> 00:00:02,500\n[channel 1] more\n\n"
    )
    assert render("vtt", "a.wav", CALL).startswith(
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.000\n<v Channel 1>Hello &lt;you&gt;?\n\n"
        "00:00:00.500 --> 00:00:01.000\n<v Channel 2>yes\n\n"
    )
    channels = [segment["channel"] for segment in json.loads(render("json", "a", CALL))["segments"]]
    assert channels == [0, 0, 1, 1]


def test_json_is_one_line_with_file_words_and_warnings() -> None:
    segment = Segment(0, 0.0, 0.5, "Hi", words=(Word(0.0, 0.5, "Hi", 0.9),))
    warning = JobWarning("audio-incomplete", "half of it", 60.0, 30.0)
    transcript = Transcript("Hi", job_id="j", segments=(segment,), warnings=(warning,))
    line = render("json", "a\udc80.wav", transcript)
    assert line.count("\n") == 1
    found = json.loads(line)
    assert (found["file"], found["text"], found["job_id"]) == ("a\\udc80.wav", "Hi", "j")
    assert found["segments"][0]["words"] == [
        {"start": 0.0, "end": 0.5, "word": "Hi", "probability": 0.9}
    ]
    assert found["warnings"] == [
        {
            "code": "audio-incomplete",
            "text": "half of it",
            "claimed_seconds": 60.0,
            "read_seconds": 30.0,
        }
    ]


@pytest.mark.parametrize(("format", "empty"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n\n")])
def test_silence_has_at_most_a_header(format: str, empty: str) -> None:
    assert render(format, "a.wav", spoken()) == empty


def test_segment_without_text_is_no_cue() -> None:
    assert render("srt", "a.wav", spoken((0.0, 1.0, "  "), (1.0, 2.0, "x"))).startswith(
        "1\n00:00:01,000"
    )


_CUE = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{3}) --> (\d+):(\d\d):(\d\d)[,.](\d{3})\n(.+)\n\n")


def _milliseconds(hours: str, minutes: str, seconds: str, rest: str) -> int:
    assert int(minutes) < 60
    assert int(seconds) < 60
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


_times = st.floats(0, 400_000) | st.sampled_from([59.9995, 3599.9999, 0.0])


@given(
    st.sampled_from(["srt", "vtt"]),
    st.lists(st.tuples(_times, _times, st.text("ab -->&<\n\x1b", min_size=1)), max_size=8),
)
def test_cues_are_in_order_and_do_not_overlap(
    format: str, segments: list[tuple[float, float, str]]
) -> None:
    shown = render(format, "a.wav", spoken(*segments))
    cues = _CUE.findall(shown)
    assert len(cues) == shown.count(" --> ") == sum(bool(text.split()) for *_, text in segments)
    last = 0
    for cue in cues:
        start, end = _milliseconds(*cue[:4]), _milliseconds(*cue[4:8])
        assert last <= start < end
        last = end


def test_tables_lyrics_and_json_lines_have_a_line_per_segment() -> None:
    assert render("tsv", "a.wav", TALK) == (
        "start\tend\ttext\n0\t1250\tHello you.\n1250\t3661500\tA & B <i>--> C\\x1b[2J\n"
    )
    late = spoken((59.996, 60.0, " a"), (3661.5, 3662.0, "b"))
    assert render("lrc", "a.wav", late) == "[01:00.00]a\n[61:01.50]b\n"
    lines = [json.loads(line) for line in render("jsonl", "a.wav", TALK).splitlines()]
    assert [(line["file"], line["id"], line["end"]) for line in lines] == [
        ("a.wav", 0, 1.25),
        ("a.wav", 1, 3661.5),
    ]
