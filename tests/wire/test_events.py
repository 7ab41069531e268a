"""Every event of both hops: what is dumped is parsed back, and nothing else gets through."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrd.errors import FieldError
from asrd.wire import client_events, frames, records, worker_events
from asrd.wire.client_events import FROM_CLIENT, TO_CLIENT
from asrd.wire.fields import dump, parse, parse_event
from asrd.wire.records import AudioFormat, Options
from asrd.wire.worker_events import FROM_WORKER, TO_WORKER
from tests.support.strategies import instances

TABLES = {"client": FROM_CLIENT, "answer": TO_CLIENT, "worker": FROM_WORKER, "front": TO_WORKER}
CLASSES = [cls for table in TABLES.values() for cls in table.values()]
RECORDS = [*CLASSES, AudioFormat, Options, records.Segment, records.Word]
FIELDS = [(cls, spec) for cls in RECORDS for spec in dataclasses.fields(cls)]


def named(value: object) -> str | None:
    return value.__name__ if isinstance(value, type) else getattr(value, "name", None)


@pytest.mark.parametrize("cls", RECORDS, ids=named)
def test_what_is_dumped_is_parsed_back(cls: type) -> None:
    @settings(max_examples=25)
    @given(instances(cls))
    def check(value: Any) -> None:
        data = orjson.loads(orjson.dumps(dump(value)))
        assert parse(cls, data) == value

    check()


@pytest.mark.parametrize(("cls", "spec"), FIELDS, ids=named)
def test_a_field_of_the_wrong_type_is_named(cls: type, spec: dataclasses.Field[Any]) -> None:
    with pytest.raises(FieldError) as caught:
        parse(cls, least(cls) | {spec.name: object()})
    assert caught.value.field == spec.name


@pytest.mark.parametrize(("cls", "spec"), FIELDS, ids=named)
def test_a_field_without_a_default_must_be_there(cls: type, spec: dataclasses.Field[Any]) -> None:
    data = least(cls) | {spec.name: None}
    if spec.default is dataclasses.MISSING:
        with pytest.raises(FieldError, match=f"^{spec.name}: is missing$"):
            parse(cls, data)
    else:
        assert getattr(parse(cls, data), spec.name) == spec.default


def least(cls: type) -> dict[str, Any]:
    """Data with the required fields alone."""
    return {
        spec.name: SAMPLES[spec.name]
        for spec in dataclasses.fields(cls)
        if spec.default is dataclasses.MISSING
    }


SAMPLES: Mapping[str, Any] = {
    "audio": {"encoding": "file"},
    "audio_seconds": 1.5,
    "audio_seconds_done": 0.5,
    "channels": 1,
    "code": "busy",
    "compute_type": "int8",
    "device": "cpu",
    "encoding": "pcm_s16le",
    "end": 2.0,
    "id": 0,
    "index": 0,
    "job_id": "j",
    "jobs": 1,
    "key": 1,
    "language": "en",
    "language_probability": 1.0,
    "languages": ["en"],
    "model": "tiny",
    "options": {},
    "pid": 1,
    "probability": 0.5,
    "rate": 16000,
    "reason": "idle",
    "run_seconds": 0.1,
    "segment": {"id": 0, "start": 0.0, "end": 1.0, "text": "one"},
    "size": 32000,
    "start": 0.0,
    "text": "one",
    "version": 1,
    "width": 2,
    "word": "one",
}


@pytest.mark.parametrize("direction", TABLES)
def test_a_table_has_each_class_under_its_own_name(direction: str) -> None:
    union = {
        "client": client_events.ClientEvent,
        "answer": client_events.AnswerEvent,
        "worker": worker_events.WorkerEvent,
        "front": worker_events.FrontEvent,
    }[direction]
    table = TABLES[direction]
    assert {cls.TYPE: cls for cls in get_args(union)} == table
    assert all(0 < len(kind) <= frames.MAX_TYPE for kind in table)


def test_an_event_is_parsed_by_its_direction() -> None:
    assert parse_event(FROM_CLIENT, "cancel", {"job_id": "j"}) == client_events.Cancel("j")
    assert parse_event(TO_WORKER, "cancel", {"key": 7}) == worker_events.CancelJob(7)
    assert parse_event(FROM_CLIENT, "transcript", {"text": ""}) is None
    assert parse_event(FROM_CLIENT, "no-such-event", {}) is None
    with pytest.raises(FieldError, match="job_id: is missing"):
        parse_event(FROM_CLIENT, "cancel", {"key": 7})


@pytest.mark.parametrize(
    ("kind", "data", "error"),
    [
        ("transcribe", {"audio": {"encoding": "mp3"}}, "audio.encoding: must be one of pcm_s16le"),
        ("transcribe", {"audio": {"encoding": "file", "sample_rate": 0}}, "audio.sample_rate: mus"),
        ("transcribe", {"audio": {"encoding": "file", "channels": 65}}, "audio.channels: must be"),
        ("transcribe", {"audio": "file"}, "audio: must be an object"),
        ("transcribe", {"job_id": "a b"}, "job_id: must be a non-empty printable string"),
        ("transcribe", {"job_id": "x" * 129}, "job_id: is longer than 128 characters"),
        ("transcribe", {"timeout_ms": 0}, "timeout_ms: must be between 1 and"),
        ("transcribe", {"timeout_ms": 1.5}, "timeout_ms: must be an integer"),
        ("transcribe", {"transcript_terms": ["a", 1]}, "transcript_terms[1]: must be a string"),
        ("audio-start", {"rate": 16000, "width": 4, "channels": 1}, "width: must be 2"),
        ("audio-chunk", {"rate": 16000, "width": 2}, "channels: is missing"),
        ("ping", {"text": 1}, "text: must be a string"),
    ],
)
def test_what_a_client_got_wrong_is_named(kind: str, data: dict[str, Any], error: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse_event(FROM_CLIENT, kind, data)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"temperature": "hot"}, "temperature: must be a number"),
        ({"temperature": [0, 3]}, "temperature[1]: must be between 0 and 2"),
        ({"beam_size": 0}, "beam_size: must be between 1 and 32"),
        ({"task": "sing"}, "task: must be one of transcribe, translate"),
        ({"language": 3}, "language: must be a string"),
    ],
)
def test_what_is_wrong_with_an_option_is_named(data: dict[str, Any], error: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse(Options, data)
    assert str(caught.value).startswith(error)


def test_temperature_is_a_number_or_a_list() -> None:
    assert parse(Options, {"temperature": 0}).temperature == 0.0
    assert parse(Options, {"temperature": [0, 0.2]}).temperature == (0.0, 0.2)


def test_a_nested_segment_is_named_with_its_index() -> None:
    word = {"start": 0, "end": 1, "word": "one", "probability": 2}
    segment = {"id": 0, "start": 0, "end": 1, "text": "one", "words": [word]}
    with pytest.raises(FieldError) as caught:
        parse_event(TO_CLIENT, "transcript", {"text": "one", "segments": [segment]})
    assert caught.value.field == "segments[0].words[0].probability"


@pytest.mark.parametrize(
    ("format_", "frame_bytes", "size", "seconds"),
    [
        (AudioFormat("pcm_s16le"), 2, 32_000, 1.0),
        (AudioFormat("pcm_s16le", 8000, 2), 4, 32_000, 1.0),
        (AudioFormat("pcm_f32le", 48_000, 1), 4, 96_000, 0.5),
        (AudioFormat("file"), 0, 12_345, None),
        (AudioFormat("file"), 0, 0, None),
    ],
)
def test_the_length_of_audio_follows_from_its_format(
    format_: AudioFormat, frame_bytes: int, size: int, seconds: float | None
) -> None:
    assert format_.frame_bytes == frame_bytes
    assert format_.seconds(size) == seconds


def test_audio_must_end_on_a_whole_frame() -> None:
    with pytest.raises(FieldError, match=r"^audio: is 6 bytes, not a multiple of 4 \(pcm_s16le, 2"):
        AudioFormat("pcm_s16le", 16_000, 2).seconds(6)
    with pytest.raises(FieldError, match="audio: is empty"):
        AudioFormat("pcm_f32le").seconds(0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
)


@given(st.data())
def test_anything_parses_or_is_a_field_error(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from(RECORDS))
    keys = st.sampled_from([spec.name for spec in dataclasses.fields(cls)] or ["text"])
    try:
        value: Any = parse(cls, data.draw(st.dictionaries(keys, JSON)))
    except FieldError as error:
        assert error.field
    else:
        assert parse(cls, dump(value)) == value
