"""Options that exclude each other: an error if a request asks for both, else the request wins."""

from typing import Any

import pytest

from asrd.engine.combinations import settle
from asrd.errors import BadRequest
from asrd.wire.fields import dump, parse
from asrd.wire.options import Options


def settled(asked: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that differ from those that were put in."""
    merged = {**defaults, **asked}
    found = dump(settle(parse(Options, asked), parse(Options, merged)))
    before = dump(parse(Options, merged))
    return {key: found.get(key) for key in found | before if found.get(key) != before.get(key)}


BATCH = {"batch_size": 8}
PADDED = {**BATCH, "vad_parameters": {"speech_pad_ms": 600}}
PADDING = {"vad_parameters": {"speech_pad_ms": 15_000}}


@pytest.mark.parametrize(
    ("asked", "defaults", "changed"),
    [
        ({}, {}, {}),
        # Batches need the VAD.
        (BATCH, {"vad_filter": False}, {"vad_filter": True}),
        ({"batch_size": 1, "prefix": "a"}, BATCH, {}),
        # Other defaults are ignored in a batch, as by faster-whisper.
        (BATCH, {"condition_on_previous_text": True, "best_of": 2}, {"vad_filter": True}),
        ({"hotwords": ""}, BATCH, {"vad_filter": True}),
        # What a request asks for is done one window at a time.
        ({"hotwords": "a"}, BATCH, {"batch_size": None}),
        ({"no_speech_threshold": 0}, BATCH, {"batch_size": None}),
        ({"vad_filter": False}, BATCH, {"batch_size": None}),
        ({"clip_timestamps": [1]}, BATCH, {"batch_size": None}),
        ({"clip_timestamps": [0, 1, 1]}, {"vad_filter": True}, {"vad_filter": False}),
        ({"task": "detect"}, {"language": "de", **BATCH}, {"language": None, "batch_size": None}),
        (
            {"task": "speech"},
            {"language": "de", **BATCH},
            {"language": None, "batch_size": None, "vad_filter": True},
        ),
        ({"task": "speech", "word_timestamps": False}, {"vad_filter": True}, {}),
        ({}, {"vad_parameters": {"threshold": 0.2}}, {}),
        ({"vad_parameters": {}}, {"vad_filter": True}, {}),
        ({"vad_parameters": {}, **BATCH}, {}, {"vad_filter": True}),
        ({"chunk_length": 1}, PADDED, {"vad_parameters": {}, "vad_filter": True}),
        (PADDING, {**BATCH, "vad_filter": True}, {"batch_size": None}),
    ],
)
def test_default_never_makes_a_request_fail(
    asked: dict[str, Any], defaults: dict[str, Any], changed: dict[str, Any]
) -> None:
    given = {"vad_filter": False, **defaults}
    assert settled(asked, given) == changed


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"task": "detect", "language": "de"}, "language: must be absent with task detect"),
        ({**BATCH, "prefix": "a"}, "prefix: is not possible with batch_size"),
        ({**BATCH, "vad_filter": False}, "vad_filter: false: is not possible with batch_size"),
        ({**BATCH, "clip_timestamps": [1]}, "clip_timestamps: is not possible with batch_size"),
        ({"vad_filter": True, "clip_timestamps": [1]}, "clip_timestamps: is not possible with vad"),
        ({**BATCH, **PADDING}, r"speech_pad_ms: half of the longest speech or more: is not poss"),
        ({**PADDED, "chunk_length": 1}, r"speech_pad_ms: half of the longest speech or more"),
        ({"vad_parameters": {}}, "vad_parameters: has an effect only with vad_filter"),
        ({"clip_timestamps": []}, "clip_timestamps: the list is empty"),
        ({"clip_timestamps": [2, 2]}, r"clip_timestamps\[1\]: 2 must be after 2, the start of its"),
        ({"clip_timestamps": [1, 2, 1.5]}, r"clip_timestamps\[2\]: 1.5 must be after 2, the end"),
    ],
)
def test_request_that_contradicts_itself_is_an_error(asked: dict[str, Any], message: str) -> None:
    options = parse(Options, asked)
    with pytest.raises(BadRequest, match=message):
        settle(options, options)
