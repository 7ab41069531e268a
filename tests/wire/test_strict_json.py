"""Both engines agree on what JSON is; the client works without orjson."""

import subprocess
import sys

import orjson
import pytest

from asrd.wire import strict_json

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
def test_both_engines_write_the_same_bytes_and_read_them_back(value: object) -> None:
    raw = strict_json.plain_dumps(value)
    assert raw == orjson.dumps(value)
    assert strict_json.plain_loads(raw) == orjson.loads(raw) == value


@pytest.mark.parametrize("raw", BAD)
def test_both_engines_refuse_the_same(raw: bytes) -> None:
    for loads in (strict_json.plain_loads, orjson.loads):
        with pytest.raises(ValueError):
            loads(raw)


@pytest.mark.parametrize("raw", [*NUMBERS, b"-9223372036854775808", b"-9223372036854775809"])
def test_both_engines_read_the_same_number_of_the_same_type(raw: bytes) -> None:
    one, other = strict_json.plain_loads(raw), orjson.loads(raw)
    assert (type(one), one) == (type(other), other)


def test_a_surrogate_pair_is_one_character() -> None:
    assert strict_json.plain_loads(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_the_codec_works_where_there_is_no_orjson() -> None:
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "from asrd.wire import frames\n"
        "decoder = frames.Decoder(frames.FrameLimits())\n"
        "decoder.receive(frames.encode('ping', {'text': 'é'}))\n"
        "event = decoder.next_frame()\n"
        "assert (event.type, event.data) == ('ping', {'text': 'é'}), event\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
