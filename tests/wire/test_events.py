"""Every event of both hops: parsed back after a dump, and refused with wrong fields."""

import dataclasses
import functools
from typing import Any

import orjson
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from asrd.errors import FieldError
from asrd.wire import client_events, records, worker_events
from asrd.wire.client_events import FROM_CLIENT, TO_CLIENT, AudioStart, Transcribe, Transcript
from asrd.wire.fields import dump, parse, parse_event
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat
from asrd.wire.worker_events import FROM_WORKER, TO_WORKER
from tests.support.strategies import instances

TABLES = [FROM_CLIENT, TO_CLIENT, FROM_WORKER, TO_WORKER]
CLASSES = [cls for table in TABLES for cls in table.values()]
RECORDS = [*CLASSES, AudioFormat, Options, records.Segment, records.Word, records.Checkpoint]
RECORDS += [worker_events.JobState]
WORD = {"start": 0, "end": 1, "word": "one", "probability": 2}
SEGMENT = {"id": 0, "start": 0, "end": 1, "text": "one", "words": [WORD]}
_AT_ONCE = settings(phases=[Phase.generate])
FIELDS = [(cls, spec) for cls in RECORDS for spec in dataclasses.fields(cls)]


def named(value: object) -> str | None:
    return value.__name__ if isinstance(value, type) else getattr(value, "name", None)


@pytest.mark.parametrize("cls", RECORDS, ids=named)
def test_parse_reverses_dump(cls: type) -> None:
    @settings(max_examples=25)
    @given(instances(cls))
    def check(value: Any) -> None:
        data = orjson.loads(orjson.dumps(dump(value)))
        assert parse(cls, data) == value

    check()


@pytest.mark.parametrize(("cls", "spec"), FIELDS, ids=named)
def test_missing_or_wrong_field_is_named(cls: type, spec: dataclasses.Field[Any]) -> None:
    with pytest.raises(FieldError) as caught:
        parse(cls, least(cls) | {spec.name: object()})
    assert caught.value.field == spec.name
    data = least(cls) | {spec.name: None}
    if spec.default is dataclasses.MISSING:
        with pytest.raises(FieldError, match=f"^{spec.name}: is missing$"):
            parse(cls, data)
    else:
        assert getattr(parse(cls, data), spec.name) == spec.default


@functools.cache
def least(cls: type) -> dict[str, Any]:
    """Data with the required fields alone."""
    # Any value will do: to look for a smaller one takes half a minute.
    data = dump(find(instances(cls), lambda value: True, settings=_AT_ONCE))
    required = [s for s in dataclasses.fields(cls) if s.default is dataclasses.MISSING]
    return {spec.name: data[spec.name] for spec in required}


def test_event_is_parsed_by_its_direction() -> None:
    assert parse_event(FROM_CLIENT, "cancel", {"job_id": "j"}) == client_events.Cancel("j")
    assert parse_event(TO_WORKER, "cancel", {"key": 7}) == worker_events.CancelJob(7)
    assert parse_event(FROM_CLIENT, "transcript", {"text": ""}) is None
    assert parse_event(FROM_CLIENT, "no-such-event", {}) is None
    with pytest.raises(FieldError, match="job_id: is missing"):
        parse_event(FROM_CLIENT, "cancel", {"key": 7})


@pytest.mark.parametrize(
    ("cls", "data", "error"),
    [
        (Transcribe, {"audio": {"encoding": "mp3"}}, "audio.encoding: must be one of pcm_s16le"),
        (Transcribe, {"audio": {"encoding": "file", "channels": 65}}, "audio.channels: must be"),
        (Transcribe, {"job_id": "x" * 129}, "job_id: is longer than 128 characters"),
        (Transcribe, {"timeout_ms": 0}, "timeout_ms: must be between 1 and"),
        (Transcribe, {"transcript_terms": ["a", 1]}, "transcript_terms[1]: must be a string"),
        (AudioStart, {"rate": 16000, "width": 4, "channels": 1}, "width: must be 2"),
        (Options, {"temperature": "hot"}, "temperature: must be a number"),
        (Options, {"temperature": [0, 3]}, "temperature[1]: must be between 0 and 2"),
        (Options, {"beam_size": 0}, "beam_size: must be between 1 and 32"),
        (Options, {"languages": ["de", "auto"]}, "languages[1]: 'auto' is not a language"),
        (Options, {"languages": [""]}, "languages[0]: '' is not a language"),
        (Options, {"task": "sing"}, "task: must be one of transcribe, translate"),
        (Transcript, {"text": "", "segments": [SEGMENT]}, "segments[0].words[0].probability: mus"),
    ],
)
def test_value_out_of_range_is_named(cls: type, data: dict[str, Any], error: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse(cls, data)
    assert str(caught.value).startswith(error)


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
def test_length_of_audio_follows_from_its_format(
    format_: AudioFormat, frame_bytes: int, size: int, seconds: float | None
) -> None:
    assert format_.frame_bytes == frame_bytes
    assert format_.seconds(size) == seconds


def test_pcm_must_end_on_a_whole_frame() -> None:
    with pytest.raises(FieldError, match=r"^audio: is 6 bytes, not a multiple of 4 \(pcm_s16le, 2"):
        AudioFormat("pcm_s16le", 16_000, 2).seconds(6)
    with pytest.raises(FieldError, match="audio: is empty"):
        AudioFormat("pcm_f32le").seconds(0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
)


@given(st.data())
def test_any_data_parses_or_is_a_field_error(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from(RECORDS))
    keys = st.sampled_from([spec.name for spec in dataclasses.fields(cls)] or ["text"])
    try:
        value: Any = parse(cls, data.draw(st.dictionaries(keys, JSON)))
    except FieldError as error:
        assert error.field
    else:
        assert parse(cls, dump(value)) == value
