"""Both engines agree on what JSON is; the client works without orjson."""

import subprocess
import sys

import orjson
import pytest

from asrd import fastjson

GOOD = [{}, {"a": [1, 2.5, None, True], "é": "語\n"}, [], "x", {"deep": {"er": [[]]}}]
BAD = [b"", b"{", b'{"a": NaN}', b"[Infinity]", b'"\xff"', b"{'a': 1}", '{"a": 1}'.encode("utf-16")]


@pytest.mark.parametrize("value", GOOD)
def test_both_engines_write_the_same_bytes_and_read_them_back(value: object) -> None:
    raw = fastjson.plain_dumps(value)
    assert raw == orjson.dumps(value)
    assert fastjson.plain_loads(raw) == orjson.loads(raw) == value


@pytest.mark.parametrize("raw", BAD)
def test_both_engines_refuse_the_same(raw: bytes) -> None:
    for loads in (fastjson.plain_loads, orjson.loads):
        with pytest.raises(ValueError):
            loads(raw)


def test_the_codec_works_where_there_is_no_orjson() -> None:
    code = (
        "import sys; sys.modules['orjson'] = None\n"
        "from asrd import wire\n"
        "decoder = wire.Decoder(wire.Limits())\n"
        "decoder.receive(wire.encode('ping', {'text': 'é'}))\n"
        "event = decoder.next_event()\n"
        "assert (event.type, event.data) == ('ping', {'text': 'é'}), event\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
