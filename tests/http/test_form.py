"""The fields of a request, in every spelling that clients use."""

import tomllib
from typing import Any

import pytest

from asrd.http.errors import HttpError
from asrd.http.form import Wanted, read_form

STREAM = [("stream", "true"), ("response_format", "verbose_json")]
DIARIZED = [("response_format", "diarized_json")]
ALIASES = {"whisper-1": "", "turbo": "large-v3-turbo"}


def read(*pairs: tuple[str, str], task: str = "transcribe") -> Wanted:
    return read_form(pairs, task, ALIASES)


def options(*pairs: tuple[str, str], task: str = "transcribe") -> dict[str, Any]:
    return dict(read(*pairs, task=task).options)


@pytest.mark.parametrize(
    "pairs",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        [("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
        [("timestamp_granularities[]", "word,segment")],
        [("timestamp_granularities", '["word", "segment"]')],
    ],
)
def test_list_is_the_same_in_every_spelling(pairs: list[tuple[str, str]]) -> None:
    wanted = read(("response_format", "verbose_json"), *pairs)
    assert (wanted.words, wanted.segments) == (True, True)
    assert wanted.options == {"word_timestamps": True, "include_tokens": True}


@pytest.mark.parametrize(
    ("granularities", "words", "segments"),
    [([], False, True), ([""], False, True), (["segment"], False, True), (["word"], True, False)],
)
def test_granularities_may_be_absent_or_empty(
    granularities: list[str], words: bool, segments: bool
) -> None:
    pairs = [("timestamp_granularities[]", name) for name in granularities]
    wanted = read(("response_format", "verbose_json"), *pairs)
    assert (wanted.words, wanted.segments) == (words, segments)


def test_formats_are_for_the_last_event_of_a_stream_with_times() -> None:
    formats = [("formats[]", "srt"), ("formats[]", "vtt")]
    wanted = read(*STREAM, *formats)
    assert (wanted.formats, wanted.ignored) == (("srt", "vtt"), ())
    assert read(STREAM[0], *formats).ignored == ("formats",)


def test_format_that_is_asked_for_twice_is_made_once() -> None:
    """A stream's last event could take minutes for a field of 64 KiB."""
    assert read(*STREAM, ("formats[]", "srt,vtt,srt"), ("formats", "srt")).formats == ("srt", "vtt")


@pytest.mark.parametrize("name", ["temperature", "suppress_tokens", "vad_parameters[threshold]"])
def test_long_value_is_not_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TOML would take a second for a name of that many parts, with all clients waiting."""
    seen: list[str] = []
    monkeypatch.setattr(tomllib, "loads", seen.append)
    text = "{" + ".".join("a" * 20_000) + " = 1}"
    assert text in str(options((name, text)))
    assert not seen


def test_granularities_cost_nothing_in_other_formats() -> None:
    assert options(("timestamp_granularities[]", "word"), ("response_format", "srt")) == {}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("beam_size", "3", 3),
        ("patience", "1.5", 1.5),
        ("vad_filter", "True", True),
        ("vad_filter", "false", False),
        ("hotwords", "[asrd]", "[asrd]"),
        ("suppress_tokens", "[-1, 50]", [-1, 50]),
        ("suppress_tokens", "-1,50", [-1, 50]),
        ("clip_timestamps", "0,5.5", [0.0, 5.5]),
        ("languages", "de, en", ["de", "en"]),
        ("temperature", "0.2", 0.2),
        ("temperature", "[0, 0.2]", [0, 0.2]),
        ("audio_track", "1", 1),
        ("audio_track", "ger", "ger"),
        ("vad_parameters", '{"threshold": 0.4}', {"threshold": 0.4}),
        ("vad_parameters[speech_pad_ms]", "200", {"speech_pad_ms": 200}),
        ("timeout", "2.5", 2.5),
        ("encoding", "pcm_s16le", "pcm_s16le"),
        ("sample_rate", "8000", 8000),
        ("task", "detect", "detect"),
    ],
)
def test_own_options_have_their_types(name: str, text: str, value: object) -> None:
    assert options((name, text)) == {name.partition("[")[0]: value}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("model", "whisper-1")], {}),
        ([("model", "turbo")], {"model": "large-v3-turbo"}),
        ([("model", "base")], {"model": "base"}),
        ([("prompt", "Dear asrd,")], {"initial_prompt": "Dear asrd,"}),
        ([("keywords[]", "asrd"), ("keywords[]", "Wyoming")], {"hotwords": "asrd, Wyoming"}),
        ([("language", "")], {}),
        ([("temperature", "0")], {}),
        ([("temperature", "0.0")], {}),
        ([("chunking_strategy", "auto")], {}),
        (
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.3")],
            {"vad_filter": True, "vad_parameters": {"threshold": 0.3}},
        ),
        (
            [("chunking_strategy", '{"type": "server_vad", "silence_duration_ms": 500}')],
            {"vad_filter": True, "vad_parameters": {"min_silence_duration_ms": 500}},
        ),
    ],
)
def test_fields_of_openai_become_options(
    pairs: list[tuple[str, str]], expected: dict[str, Any]
) -> None:
    assert options(*pairs) == expected


def test_translation_is_the_task_whatever_the_field_says() -> None:
    assert options(("task", "transcribe"), task="translate") == {"task": "translate"}


def test_fields_that_nobody_knows_are_ignored_and_named() -> None:
    wanted = read(("seed", "1"), ("top_p[]", "2"), ("model", "whisper-1"))
    assert wanted.ignored == ("seed", "top_p")


@pytest.mark.parametrize(
    ("pairs", "param", "problem"),
    [
        ([("response_format", "xml")], "response_format", "must be one of json, text, srt"),
        ([("num_speakers", "2")], "num_speakers", "only with diarized_json"),
        ([("task", "speakers")], "task", "use response_format=diarized_json"),
        ([*DIARIZED, ("task", "detect")], "task", "must be transcribe or translate"),
        ([*DIARIZED, ("task", "speakers")], "task", "use response_format=diarized_json"),
        ([*DIARIZED, ("split_channels", "true")], "split_channels", "is not possible"),
        (
            [("stream", "true"), ("response_format", "vtt")],
            "stream",
            "json, text, verbose_json and diar",
        ),
        ([("stream", "perhaps")], "stream", "must be true or false"),
        ([*STREAM, ("formats[]", "pdf")], "formats", "must be of txt, json, srt, vtt"),
        ([("timestamp_granularities[]", "words")], "timestamp_granularities", "word or segment"),
        ([("include[]", "logprobs")], "include", "not available"),
        ([("known_speaker_names[]", "Ada")], "known_speaker_names", "speakers"),
        ([("chunking_strategy", "manual")], "chunking_strategy", "must be auto"),
        ([("chunking_strategy[x]", "1")], "chunking_strategy", "no member 'x'"),
        ([("vad_parameters[x]", "1")], "vad_parameters", "no member 'x'"),
        ([("vad_parameters", "[" * 100_000)], "vad_parameters", "no member"),
        ([("language", "de"), ("language", "en")], "language", "given twice"),
        ([("timeout", "soon")], "timeout", "must be a number"),
        ([("timeout", "0")], "timeout", "must be between"),
        ([("a]b[", "1")], "a]b[", "no name of a field"),
    ],
)
def test_wrong_field_is_named(pairs: list[tuple[str, str]], param: str, problem: str) -> None:
    with pytest.raises(HttpError, match=problem) as caught:
        read(*pairs)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_speakers_need_the_times_of_words() -> None:
    found = read_form(
        [("response_format", "diarized_json"), ("num_speakers", "2")], "transcribe", {}
    )
    assert (found.speakers, found.num_speakers) == (True, 2)
    assert found.options == {"word_timestamps": True}
    # A translation's words have no reliable times.
    found = read_form([("response_format", "diarized_json")], "translate", {})
    assert (found.speakers, found.options) == (True, {"task": "translate"})
