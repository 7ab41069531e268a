"""The fuzzed functions of bytes; an exception means a bug in the code under test.

All of them check one rule: the input of a peer parses or is a protocol error (ProtocolError,
FieldError, and their counterparts for settings and audio), and never anything else.
"""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from asrd import config
from asrd.engine.audio.opening import open_recording
from asrd.engine.audio.reader import RATE
from asrd.errors import BadAudio, ConfigError, FieldError, TooLarge
from asrd.wire import client_events, frames, strict_json, worker_events
from asrd.wire.fields import dump, parse, parse_event
from asrd.wire.options import Options
from asrd.wire.records import SENTENCE_MAX, AudioFormat
from tests.fuzz.almost import Source, record
from tests.support.feeding import Feed, payload_of
from tests.support.raw import memfd

TABLES = (
    client_events.FROM_CLIENT,
    client_events.TO_CLIENT,
    worker_events.FROM_WORKER,
    worker_events.TO_WORKER,
)
RECORDS = (*(cls for table in TABLES for cls in table.values()), AudioFormat, Options)

# --- the codec ------------------------------------------------------------------------------------

_LIMITS = tuple(
    frames.FrameLimits(data=data, payload=payload, strict=strict)
    for data, payload in ((frames.MAX_DATA, 1 << 20), (24, 9))
    for strict in (True, False)
)
# An eighth of the streams up to this length is fed byte by byte, all others in a few pieces.
_BYTEWISE = 200
_PIECES = 8


def codec(data: bytes) -> None:
    """The first bytes decide how the rest, a stream, is fed and where descriptors arrive."""
    source = Source(data)
    how = source.byte()
    limits = _LIMITS[how & 3]
    arrivals = {0: source.byte() % 7, source.byte(): source.byte() % 7}
    stream = source.rest()
    if how & 0xE0 == 0xE0:
        # The stream reaches the bound of a header line, or a little more.
        stream = b" " * (frames.MAX_HEADER - 64) + stream
    bytewise = how & 0x1C == 0x1C and len(stream) <= _BYTEWISE
    step = 1 if bytewise else len(stream) // _PIECES + 1
    whole = _fed(stream, arrivals, len(stream) or 1, limits)
    pieces = _fed(stream, arrivals, step, limits)
    _same(whole, pieces)
    for event in whole.events:
        _events_of(event)


def _fed(stream: bytes, arrivals: dict[int, int], step: int, limits: frames.FrameLimits) -> Feed:
    """Feeds the stream as the kernel would: a read ends before the byte of the next descriptors."""
    feed = Feed(limits)
    view = memoryview(stream)
    most = max(frames.MAX_HEADER + frames._LINE_STEP, limits.data)
    for start, end in pairwise(sorted({*range(0, len(stream), step), *arrivals, len(stream)})):
        if end <= len(stream):
            feed.receive(view[start:end], arrivals.get(start, 0))
            assert len(feed.decoder._buffer) <= most
    feed.receive_eof()
    for event in feed.events:
        assert event.payload_length == len(payload_of(event)) <= limits.payload
    feed.close()
    if feed.error is not None:
        _is_a_sentence(str(feed.error))
    return feed


def _same(whole: Feed, pieces: Feed) -> None:
    """Checks that the result does not depend on the pieces, except that an undeclared descriptor
    may be found earlier in small ones."""
    one, other = _contents(whole), _contents(pieces)
    if str(pieces.error).startswith("fds: a descriptor arrived"):
        assert one[: len(other)] == other
    else:
        assert one == other
        assert str(whole.error) == str(pieces.error)


def _contents(feed: Feed) -> list[tuple[str, dict[str, Any], bytes, int]]:
    return [(e.type, e.data, payload_of(e), len(e.fds)) for e in feed.events]


def _events_of(frame: frames.Frame) -> None:
    """Checks that an accepted frame can be sent again, and parses or is a field error."""
    feed = Feed(frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False))
    feed.receive(frames.encode(frame.type, frame.data))
    assert [(e.type, e.data) for e in feed.events] == [(frame.type, frame.data)], feed.error
    for table in TABLES:
        if frame.type in table:
            _parsed(table[frame.type], frame.data)


def _is_a_sentence(problem: str) -> None:
    """Checks that the error fits an answer, and one line of the log."""
    assert 0 < len(problem) <= SENTENCE_MAX and problem.isprintable(), repr(problem)


# --- events ---------------------------------------------------------------------------------------

_MAKERS = tuple((cls, record(cls)) for cls in RECORDS)


def fields(data: bytes) -> None:
    """Parses almost valid data of every record of both hops."""
    source = Source(data)
    cls, make = source.pick(_MAKERS)
    _parsed(cls, make(source))


def _parsed(cls: type, data: dict[str, Any]) -> None:
    try:
        kind = getattr(cls, "TYPE", None)
        value: Any = parse(cls, data) if kind is None else parse_event({kind: cls}, kind, data)
    except FieldError as error:
        assert error.field
        _is_a_sentence(str(error))
        return
    try:
        raw = orjson.dumps(dump(value))
    except TypeError:
        # An integer beyond 64 bits in a field that is passed on unread: orjson never reads one.
        return
    assert parse(cls, orjson.loads(raw)) == value


# --- JSON -----------------------------------------------------------------------------------------


def engines(data: bytes) -> None:
    """Checks that both JSON engines accept the same input, with the same value."""
    verdicts = [_verdict(loads, data) for loads in (orjson.loads, strict_json.plain_loads)]
    if verdicts[0] != verdicts[1]:
        raise AssertionError(f"orjson: {verdicts[0]}, json: {verdicts[1]}")


def _verdict(loads: Callable[[bytes], Any], data: bytes) -> str:
    try:
        value = loads(data)
    except (ValueError, RecursionError):
        return "refused"
    # Types and order count, too: 1 is not 1.0.
    return json.dumps(value)


# --- settings -------------------------------------------------------------------------------------


def settings(data: bytes) -> None:
    with memfd(data) as fd:
        path = Path(f"/proc/self/fd/{fd.fileno()}")
        for load in (config.load_front, lambda path: config.load_worker(path, "0")):
            try:
                load(path)
            except ConfigError as error:
                assert str(error)


# --- recordings -----------------------------------------------------------------------------------

_FORMATS = (
    AudioFormat("file"),
    AudioFormat("pcm_s16le"),
    AudioFormat("pcm_f32le"),
    AudioFormat("pcm_s16le", 8000, 2),
)
_MAX_SECONDS = 100.0


def recordings(data: bytes) -> None:
    with memfd(data[1:]) as fd:
        try:
            with open_recording(fd.fileno(), _FORMATS[sum(data[:1]) % 4], _MAX_SECONDS) as opened:
                count = sum(len(block) for block in opened)
            assert 0 < count <= _MAX_SECONDS * RATE
        except (BadAudio, TooLarge) as error:
            _is_a_sentence(error.text)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": codec,
    "events": fields,
    "json": engines,
    "settings": settings,
    "recordings": recordings,
}
