"""Transcripts as the official client's types want them, which validate each answer strictly."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionTextSegmentEvent,
    TranscriptionVerbose,
)

from asrd.http import answers
from asrd.http.form import Wanted
from asrd.wire.client_events import Progress, Transcript
from asrd.wire.records import JobWarning, Segment, Word

WORDS = (Word(0.0, 0.5, " one", 0.9), Word(0.5, 1.0, " yes", 0.8))
SEGMENTS = (
    Segment(0, 0.0, 1.0, " one yes", -0.1, 0.01, 0.0, 1.1, WORDS, seek=0, tokens=(50364, 472)),
    Segment(1, 30.0, 31.5, " no", -0.2, 0.02, 0.2, 1.0, (), seek=3000, tokens=(50364,)),
)
TRANSCRIPT = Transcript("one yes no", language="de", duration_ms=31_500, segments=SEGMENTS)


def wanted(format_: str = "json", words: bool = False, task: str = "transcribe") -> Wanted:
    return Wanted({"task": task}, format_, False, words, not words, (), ())


def body(transcript: Transcript = TRANSCRIPT, **how: Any) -> Any:
    return answers.body(transcript, wanted(**how))[0]


def test_json_has_text_languages_and_usage() -> None:
    found = Transcription.model_validate(body(), strict=True)
    assert found.text == "one yes no"
    assert found.languages is not None and [item.code for item in found.languages] == ["de"]
    assert found.usage is not None and found.usage.type == "duration"
    assert found.usage.seconds == 31.5


def test_verbose_json_has_every_field_of_a_segment() -> None:
    found = TranscriptionVerbose.model_validate(body(format_="verbose_json"), strict=True)
    assert (found.language, found.duration, found.text) == ("german", 31.5, "one yes no")
    assert found.segments is not None and found.words is None
    second = found.segments[1].model_dump()
    assert second == {
        **{"id": 1, "seek": 3000, "start": 30.0, "end": 31.5, "text": " no", "tokens": [50364]},
        **{"temperature": 0.2, "avg_logprob": -0.2, "compression_ratio": 1.0},
        "no_speech_prob": 0.02,
    }


def test_diarized_json_has_a_speaker_for_each_segment() -> None:
    segments = tuple(
        dataclasses.replace(segment, speaker=number)
        for segment, number in zip(SEGMENTS, (0, 27), strict=True)
    )
    transcript = dataclasses.replace(TRANSCRIPT, segments=segments)
    found = TranscriptionDiarized.model_validate(
        body(transcript, format_="diarized_json"), strict=True
    )
    assert (found.text, found.duration, found.task) == ("one yes no", 31.5, "transcribe")
    assert [(each.id, each.speaker, each.text) for each in found.segments] == [
        ("0", "A", " one yes"),
        ("1", "AB", " no"),
    ]


def test_words_are_at_the_top_and_have_no_spaces() -> None:
    found = TranscriptionVerbose.model_validate(
        body(format_="verbose_json", words=True), strict=True
    )
    assert found.segments is None and found.words is not None
    assert [(word.word, word.start, word.end) for word in found.words] == [
        ("one", 0.0, 0.5),
        ("yes", 0.5, 1.0),
    ]


def test_translation_says_english() -> None:
    found = body(format_="verbose_json", task="translate")
    assert (found["task"], found["language"]) == ("translate", "english")


def test_subtitles_and_text() -> None:
    assert body(format_="text") == "one yes no\n"
    assert body(format_="srt").startswith("1\n00:00:00,000 --> 00:00:01,000\none yes\n\n2\n")
    assert body(format_="vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\none yes\n")


@pytest.mark.parametrize("format_", ["json", "verbose_json"])
def test_warnings_are_added_only_if_there_are_some(format_: str) -> None:
    warning = JobWarning("audio-incomplete", "ends early")
    damaged = Transcript("one", duration_ms=1, warnings=(warning,))
    assert body(damaged, format_=format_)["warnings"] == [
        {"code": "audio-incomplete", "text": "ends early"}
    ]
    assert "warnings" not in body(format_=format_)


@given(st.lists(st.text(alphabet="ab \n\t", max_size=4), max_size=8))
def test_deltas_together_are_the_text(texts: list[str]) -> None:
    deltas = answers.Deltas()
    events = [event for text in texts for event in deltas.add(Segment(0, 0.0, 1.0, text))]
    assert "".join(event["delta"] for event in events) == "".join(texts).strip()
    for event in events:
        TranscriptionTextDeltaEvent.model_validate(event, strict=True)


def test_events_of_verbose_json_have_times_and_what_is_known_of_the_duration() -> None:
    events = answers.events_of(wanted("verbose_json"))
    (first,) = events.add(SEGMENTS[0])
    events.progress(Progress("a", 1.0, 31.5))
    (second,) = events.add(SEGMENTS[1])
    for event in (first, second):
        # Nobody knows the speaker.
        TranscriptionTextSegmentEvent.model_validate({**event, "speaker": ""}, strict=True)
    assert [word["word"] for word in first["words"]] == [" one", " yes"]
    assert (second["start"], second["end"], second["text"]) == (30.0, 31.5, " no")
    assert ("duration" in first, second["duration"]) == (False, 31.5)


def test_last_event_brings_files_and_warnings() -> None:
    found = answers.Events(("srt", "txt")).done(TRANSCRIPT)
    assert found["formats"] == {"srt": body(format_="srt"), "txt": "one yes\nno\n"}
    warned = dataclasses.replace(TRANSCRIPT, warnings=(JobWarning("audio-incomplete", "early"),))
    for events in (answers.Deltas(), answers.Events()):
        assert "formats" not in events.done(warned)
        assert events.done(warned)["warnings"][0]["text"] == "early"


def test_last_event_counts_what_the_model_read_and_wrote() -> None:
    event = json.loads(json.dumps(answers.events_of(wanted()).done(TRANSCRIPT)))
    found = TranscriptionTextDoneEvent.model_validate(event, strict=True)
    assert found.text == "one yes no" and found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens) == (1575, 3)
    assert found.usage.total_tokens == 1578
