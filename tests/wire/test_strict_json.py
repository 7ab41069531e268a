"""orjson and the standard library accept the same JSON."""

import orjson
import pytest

from asrd.wire import strict_json
from tests.support.subprocesses import run_python

GOOD = [{}, {"a": [1, 2.5, None, True], "é": "語\n"}, [], "x", {"deep": {"er": [[]]}}]
BAD = [
    b"",
    b"{",
    b'{"a": NaN}',
    b"[Infinity]",
    b"1e400",
    b"-" + b"9" * 310,
    b'"\xff"',
    b'"\\ud800"',
    b'{"\\udc00": 1}',
    b"{'a': 1}",
    '{"a": 1}'.encode("utf-16"),
]
NUMBERS = [b"-0", b"1e308", b"1E5", b"18446744073709551615", b"18446744073709551616", b"9" * 300]


@pytest.mark.parametrize("value", GOOD)
def test_both_parsers_write_and_read_the_same(value: object) -> None:
    raw = strict_json.plain_dumps(value)
    assert raw == orjson.dumps(value)
    assert strict_json.plain_loads(raw) == orjson.loads(raw) == value


@pytest.mark.parametrize("raw", BAD)
def test_both_parsers_refuse_invalid_json(raw: bytes) -> None:
    for loads in (strict_json.plain_loads, orjson.loads):
        with pytest.raises(ValueError):
            loads(raw)


@pytest.mark.parametrize("raw", [*NUMBERS, b"-9223372036854775808", b"-9223372036854775809"])
def test_both_parsers_return_the_same_number_type(raw: bytes) -> None:
    one, other = strict_json.plain_loads(raw), orjson.loads(raw)
    assert (type(one), one) == (type(other), other)


def test_surrogate_pair_is_one_character() -> None:
    assert strict_json.plain_loads(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_codec_works_without_orjson() -> None:
    code = """
import sys; sys.modules['orjson'] = None
from asrd.wire import frames
decoder = frames.Decoder(frames.FrameLimits())
decoder.receive(frames.encode('ping', {'text': 'é'}))
print(decoder.next_frame())
"""
    assert "type='ping', data={'text': 'é'}" in run_python(code).stdout
