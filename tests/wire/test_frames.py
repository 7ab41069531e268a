"""The codec: fed whole, bytewise, in random cuts and with trailing bytes; then lied to."""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrd.errors import ProtocolError
from asrd.version import __version__
from asrd.wire import frames
from tests.support.feeding import BytesSink, Feed, payload_of


@pytest.fixture
def feed() -> Iterator[Feed]:
    fed = Feed()
    yield fed
    fed.close()


def header(**fields: Any) -> bytes:
    return json.dumps({"type": "ping", **fields}).encode() + b"\n"


def told(feed: Feed) -> list[tuple[str, dict[str, Any], bytes, int]]:
    return [(e.type, e.data, payload_of(e), len(e.fds)) for e in feed.events]


# --- whole, bytewise, trailing --------------------------------------------------------------------

THREE = (
    frames.encode("ping", {"text": "é"})
    + frames.encode("audio-chunk", {"rate": 16000}, payload_length=5)
    + b"12\n45"
    + frames.encode("audio-stop")
)
TOLD = [
    ("ping", {"text": "é"}, b"", 0),
    ("audio-chunk", {"rate": 16000}, b"12\n45", 0),
    ("audio-stop", {}, b"", 0),
]


def test_encode_keeps_the_header_short_and_says_only_what_there_is() -> None:
    raw = frames.encode("ping", {"text": "x" * 100_000}, payload_length=7, fds=1)
    line, body = raw.split(b"\n", 1)
    assert json.loads(line) == {
        "type": "ping",
        "version": __version__,
        "data_length": len(body),
        "payload_length": 7,
        "fds": 1,
    }
    assert json.loads(body) == {"text": "x" * 100_000}
    assert json.loads(frames.encode("audio-stop")) == {"type": "audio-stop", "version": __version__}


def test_whole(feed: Feed) -> None:
    feed.receive(THREE)
    assert told(feed) == TOLD


def test_bytewise(feed: Feed) -> None:
    for index in range(len(THREE)):
        feed.receive(THREE[index : index + 1])
    assert told(feed) == TOLD
    assert not feed.decoder.in_frame


def test_with_trailing_bytes(feed: Feed) -> None:
    more = frames.encode("describe")
    feed.receive(THREE + more[:9])
    assert told(feed) == TOLD
    assert feed.decoder.in_frame
    feed.receive(more[9:])
    assert told(feed)[3:] == [("describe", {}, b"", 0)]


def test_data_may_stand_in_the_header_and_is_merged_under_the_data_part(feed: Feed) -> None:
    body = b'{"b": 2, "c": 3}'
    feed.receive(header(data={"a": 1, "b": 1}, data_length=len(body)) + body)
    feed.receive(header(data={"a": 1}))
    feed.receive(header(data=None, payload_length=None, fds=None, version=5, other=[]))
    assert [event.data for event in feed.events] == [{"a": 1, "b": 2, "c": 3}, {"a": 1}, {}]


def test_repr_shows_where_it_stands(feed: Feed) -> None:
    assert repr(feed.decoder) == "<Decoder header buffered=0 fds=0>"
    feed.receive(b'{"type"', fds=1)
    assert repr(feed.decoder) == "<Decoder header buffered=7 fds=1>"
    feed.receive(b': "x", "data_length": 9, "fds": 1}\n{"a"')
    assert repr(feed.decoder) == "<Decoder data buffered=4 fds=1>"
    feed.receive(b"!!!!!")
    assert repr(feed.decoder) == "<Decoder broken buffered=0 fds=0>"


# --- the round trip -------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FRAMES = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
        st.dictionaries(TEXT, JSON, max_size=3),
        st.binary(max_size=2000),
        st.integers(0, frames.MAX_FDS),
    ),
    max_size=5,
)


def reads(sent: Iterable[tuple[bytes, int]], cuts: list[int]) -> Iterator[tuple[bytes, int]]:
    """The bytes in pieces; descriptors come with the first byte of their event, as the kernel
    gives them: it ends a read before bytes that bring more."""
    for raw, fds in sent:
        bounds = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
        for start, end in pairwise(bounds):
            yield raw[start:end], fds if start == 0 else 0


@given(FRAMES, st.lists(st.integers(1, 3000)), st.booleans())
def test_whatever_is_sent_arrives_in_whatever_cuts(
    sent: list[tuple[str, dict[str, Any], bytes, int]], cuts: list[int], strict: bool
) -> None:
    feed = Feed(frames.FrameLimits(payload=1 << 20, strict=strict))
    raws = [
        (frames.encode(kind, data, len(payload), fds) + payload, fds)
        for kind, data, payload, fds in sent
    ]
    for piece, fds in reads(raws, cuts):
        feed.receive(piece, fds)
    feed.decoder.receive_eof()
    assert feed.error is None
    assert told(feed) == sent
    assert [event.payload_length for event in feed.events] == [len(f[2]) for f in sent]
    feed.close()


# --- limits: at the bound, and one past it --------------------------------------------------------


def line_of(length: int) -> bytes:
    """A header line of so many bytes, without its newline."""
    start = b'{"type": "ping", "pad": "'
    return start + b"x" * (length - len(start) - 2) + b'"}'


@pytest.mark.parametrize("step", [1 << 20, 511])
def test_a_header_line_may_be_so_long_and_no_longer(step: int) -> None:
    for over in (False, True):
        feed, raw = Feed(), line_of(frames.MAX_HEADER + over) + b"\n"
        for start in range(0, len(raw), step):
            feed.receive(raw[start : start + step])
        assert len(feed.events) == (not over)
        assert (str(feed.error) == "the header line is longer than 16384 bytes") == over
        feed.close()


def test_a_header_without_end_is_given_up_at_the_limit(feed: Feed) -> None:
    for _ in range(16):
        feed.receive(b"x" * 1024)
        assert feed.error is None
    feed.receive(b"x")
    assert str(feed.error) == "the header line is longer than 16384 bytes"


def nested(depth: int) -> bytes:
    """An object in which a list stands so many levels deep."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("limits", "at_the_limit", "past_it", "error"),
    [
        (
            frames.FrameLimits(data=40),
            header(data_length=40) + b'{"a": "' + b"x" * 31 + b'"}',
            header(data_length=41),
            "data_length: 41 is over the limit of 40",
        ),
        (
            frames.FrameLimits(payload=10),
            header(payload_length=10) + b"0123456789",
            header(payload_length=11),
            "payload_length: 11 is over the limit of 10",
        ),
        (
            frames.FrameLimits(),
            header(),
            header(payload_length=1),
            "payload_length: 1 is over the limit",
        ),
        (
            frames.FrameLimits(),
            header(type="x" * 64),
            header(type="x" * 65),
            "type: must be a string of",
        ),
        (frames.FrameLimits(), header(), header(fds=5), "fds: 5 is over the limit of 4"),
        (
            frames.FrameLimits(),
            header(data_length=68) + nested(32),
            header(data_length=70) + nested(33),
            "data is not acceptable JSON: it is nested deeper than 32 levels",
        ),
        (
            frames.FrameLimits(),
            header(data=json.loads(nested(31))),
            header(data=json.loads(nested(32))),
            "the header is not acceptable JSON: it is nested deeper than 32 levels",
        ),
    ],
)
def test_limits(
    limits: frames.FrameLimits, at_the_limit: bytes, past_it: bytes, error: str
) -> None:
    feed = Feed(limits)
    feed.receive(at_the_limit)
    assert len(feed.events) == 1
    feed.receive(past_it)
    assert len(feed.events) == 1
    assert str(feed.error).startswith(error)
    feed.close()


def test_a_length_over_the_limit_is_refused_before_its_bytes_come(feed: Feed) -> None:
    feed.receive(header(data_length=frames.MAX_DATA + 1))
    assert str(feed.error) == f"data_length: {frames.MAX_DATA + 1} is over the limit of 262144"


# --- malformed: the error names the field ---------------------------------------------------------

LENGTHS = [
    (value, key)
    for key in ("data_length", "payload_length", "fds")
    for value in ("-1", "1.0", "1e0", "true", '"1"', "[]", "{}", "1" + "0" * 30)
]


@pytest.mark.parametrize(("value", "key"), LENGTHS)
def test_a_length_is_a_plain_integer(value: str, key: str, feed: Feed) -> None:
    feed.receive(f'{{"type": "ping", "{key}": {value}}}\n'.encode())
    assert str(feed.error) == f"{key}: must be a non-negative integer"


@pytest.mark.parametrize("value", [2**53, 2**63, 2**64 - 1])
def test_a_huge_length_is_over_the_limit(value: int, feed: Feed) -> None:
    feed.receive(header(payload_length=value))
    assert str(feed.error) == f"payload_length: {value} is over the limit of {1 << 20}"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"\n", "the header is not acceptable JSON"),
        (b"GET / HTTP/1.1\r\n", "the header is not acceptable JSON"),
        (b"[]\n", "the header is not a JSON object"),
        (b'"ping"\n', "the header is not a JSON object"),
        (b"null\n", "the header is not a JSON object"),
        (b"{}\n", "type: must be a string of 1 to 64 characters"),
        (header(type=""), "type: must be a string"),
        (header(type=None), "type: must be a string"),
        (header(type=7), "type: must be a string"),
        (header(type=["ping"]), "type: must be a string"),
        (header(data=[]), "data: must be an object"),
        (header(data="x"), "data: must be an object"),
        (header(data=0), "data: must be an object"),
        (b'{"type": "ping", "type": "pong"}\n', "the header is not acceptable JSON: 'type' occurs"),
        (b'{"type": "p", "data": {"a": 1, "a": 1}}\n', "the header is not acceptable JSON: 'a' oc"),
        (b'{"type": "ping", "x": NaN}\n', "the header is not acceptable JSON"),
        (b'{"type": "ping", "x": -Infinity}\n', "the header is not acceptable JSON"),
        (b'{"type": "ping", "x": 1e999}\n', "the header is not acceptable JSON"),
        (b'{"type": "p\xff"}\n', "the header is not acceptable JSON"),
        (b'{"type": "p\xed\xa0\x80"}\n', "the header is not acceptable JSON"),
        (rb'{"type": "p\ud800"}' + b"\n", "the header is not acceptable JSON"),
        (b'{"type": "ping",}\n', "the header is not acceptable JSON"),
        (b'{"type": "ping"} {}\n', "the header is not acceptable JSON"),
        (b"\xef\xbb\xbf" + header(), "the header is not acceptable JSON"),
        (b'{"type": ' + b"[" * 2000 + b"\n", "the header is not acceptable JSON"),
        (b'{"x": ' + b"[" * 1020 + b"]" * 1020 + b"}\n", "the header is not acceptable JSON"),
        (header(data_length=2) + b"[]", "data is not a JSON object"),
        (header(data_length=4) + b"null", "data is not a JSON object"),
        (header(data_length=3) + b"{}x", "data is not acceptable JSON"),
        (header(data_length=2) + b'{"', "data is not acceptable JSON"),
        (header(data_length=4) + b"\x00{}\n", "data is not acceptable JSON"),
        (header(data_length=15) + b'{"a": 1,"a": 2}', "data is not acceptable JSON: 'a' occurs"),
        (header(data_length=8) + b'{"a":NaN', "data is not acceptable JSON"),
    ],
)
def test_malformed(raw: bytes, error: str, feed: Feed) -> None:
    feed.receive(raw)
    assert feed.events == []
    assert str(feed.error).startswith(error)


def test_a_duplicate_with_a_long_name_is_told_shortly(feed: Feed) -> None:
    key = "k" * 5000
    feed.receive(f'{{"type": "x", "{key}": 1, "{key}": 1}}\n'.encode())
    assert len(str(feed.error)) < 200


def test_digits_without_end_are_no_integer(feed: Feed) -> None:
    body = b'{"a": ' + b"9" * 10_000 + b"}"
    feed.receive(header(data_length=len(body)) + body)
    assert str(feed.error).startswith("data is not acceptable JSON")


def test_what_asrd_wrote_itself_is_parsed_faster_and_still_not_blindly() -> None:
    for body, accepted in (
        (b'{"a": 1, "a": 2}', True),
        (b'{"a": NaN}', False),
        (b"[]", False),
        # What could be read, but not be written again for the client.
        (nested(300), False),
        (nested(200), True),
    ):
        feed = Feed(frames.FrameLimits(strict=False))
        feed.receive(header(data_length=len(body)) + body)
        assert bool(feed.events) == accepted == (feed.error is None)
        feed.close()


# --- after an error, and at the end ---------------------------------------------------------------


def test_events_before_an_error_are_still_delivered(feed: Feed) -> None:
    feed.receive(THREE + b"rubbish\n" + THREE)
    assert told(feed) == TOLD
    assert feed.error is not None


def test_after_an_error_everything_is_refused_and_closed(feed: Feed) -> None:
    feed.receive(b"rubbish\n", fds=1)
    feed.receive(THREE, fds=2)
    feed.receive(b"")
    assert feed.events == []
    assert repr(feed.decoder) == "<Decoder broken buffered=0 fds=0>"


@pytest.mark.parametrize(
    "begun",
    [b"{", header(data_length=5), header(data_length=5) + b"{}", header(payload_length=5) + b"12"],
)
def test_the_end_in_the_middle_of_an_event_is_an_error(begun: bytes, feed: Feed) -> None:
    feed.receive(THREE + begun)
    assert feed.decoder.in_frame
    feed.decoder.receive_eof()
    with pytest.raises(ProtocolError, match="ended in the middle of an event"):
        feed.decoder.next_frame()


def test_the_end_between_two_events_is_none(feed: Feed) -> None:
    feed.receive(THREE)
    feed.decoder.receive_eof()
    assert feed.decoder.next_frame() is None


def test_the_end_after_an_error_does_not_hide_it(feed: Feed) -> None:
    feed.receive(b"rubbish\n")
    feed.decoder.receive_eof()
    with pytest.raises(ProtocolError, match="the header is not acceptable JSON"):
        feed.decoder.next_frame()


def test_a_closed_decoder_takes_nothing_more(feed: Feed) -> None:
    feed.receive(header(payload_length=5) + b"12", fds=1)
    feed.decoder.close()
    feed.decoder.close()
    feed.receive(b"345", fds=1)
    assert str(feed.error) == "closed"


# --- descriptors ----------------------------------------------------------------------------------


def test_each_event_takes_as_many_descriptors_as_it_declares(feed: Feed) -> None:
    feed.receive(header(fds=2), fds=2)
    feed.receive(header(fds=1) + header(), fds=1)
    assert [len(event.fds) for event in feed.events] == [2, 1, 0]


def test_descriptors_may_wait_for_a_long_event_and_for_the_next(feed: Feed) -> None:
    begin, end = header(payload_length=6, fds=1) + b"123", b"456"
    feed.receive(begin, fds=1)
    feed.receive(end + header(fds=1), fds=1)
    first, second = feed.events
    assert (len(first.fds), len(second.fds)) == (1, 1)


def test_more_declared_than_came_is_an_error(feed: Feed) -> None:
    feed.receive(header(fds=2), fds=1)
    assert str(feed.error) == "fds: 2 declared, 1 came"


def test_one_that_nobody_declared_is_an_error_after_the_event(feed: Feed) -> None:
    feed.receive(header(fds=1), fds=2)
    assert len(feed.events) == 1
    assert str(feed.error) == "fds: a descriptor came that no event declared"


def test_one_that_comes_with_nothing_is_an_error(feed: Feed) -> None:
    feed.receive(b"", fds=1)
    assert str(feed.error) == "fds: a descriptor came that no event declared"


def test_so_many_may_wait_and_no_more(feed: Feed) -> None:
    feed.receive(header(fds=4)[:-1], fds=4)
    assert feed.error is None
    feed.receive(b"", fds=1)
    assert str(feed.error) == "fds: more than 4 wait for their events"


def test_an_event_closes_what_was_not_taken_from_it(feed: Feed) -> None:
    feed.receive(header(fds=2, payload_length=2) + b"ab", fds=2)
    event = feed.events.pop()
    event.fds.pop().close()
    event.close()


def test_what_is_kept_survives_the_reads_buffer(feed: Feed) -> None:
    buffer = bytearray(THREE)
    feed.decoder.receive(memoryview(buffer))
    while (event := feed.decoder.next_frame()) is not None:
        feed.events.append(event)
        feed.decoder.keep()
        buffer[:] = b"x" * len(buffer)
    assert told(feed) == TOLD


# --- sinks ----------------------------------------------------------------------------------------


def test_rule_5_the_owner_has_one_event_before_the_sink_of_the_next_is_opened() -> None:
    seen: list[str] = []

    def open_sink(event: frames.Frame) -> frames.Sink:
        seen.append(f"open {event.type} {event.data}")
        return BytesSink()

    decoder = frames.Decoder(frames.FrameLimits(payload=100), open_sink)
    raw = [frames.encode(kind, {"a": kind}, 3) + b"abc" for kind in ("one", "two")]
    decoder.receive(raw[0] + frames.encode("none") + raw[1])
    while (event := decoder.next_frame()) is not None:
        seen.append(f"event {event.type}")
    assert seen == [
        "open one {'a': 'one'}",
        "event one",
        "event none",
        "open two {'a': 'two'}",
        "event two",
    ]


def test_a_payload_goes_to_its_sink_as_it_comes() -> None:
    sink = BytesSink()
    decoder = frames.Decoder(frames.FrameLimits(payload=100), lambda event: sink)
    decoder.receive(header(payload_length=6) + b"12")
    assert decoder.next_frame() is None
    assert sink.data == b"12"
    decoder.receive(b"3456" + header())
    event = decoder.next_frame()
    assert event is not None
    assert event.payload is sink
    assert sink.data == b"123456"
    event.close()
    assert sink.closed == 1


# --- whatever comes: events or a protocol error, and nothing is lost ------------------------------

PARTS = st.sampled_from(
    [
        b"{",
        b"}",
        b"\n",
        b'{"type": "ping"}\n',
        b'{"type": "x", "data_length": 2}\n{}',
        b'{"type": "x", "payload_length": 3, "fds": 1}\nabc',
        b'{"type": "x", "data_length": 99999999999}\n',
        b'"data_length": ',
        b"[" * 40,
        b"\xff\x00",
    ]
)


@given(
    st.lists(st.tuples(st.binary(max_size=40) | PARTS | PARTS, st.sampled_from([0, 0, 0, 1, 5]))),
    st.booleans(),
    st.booleans(),
)
def test_any_input_gives_events_or_a_protocol_error(
    pieces: list[tuple[bytes, int]], strict: bool, eof: bool
) -> None:
    feed = Feed(frames.FrameLimits(data=100, payload=100, strict=strict))
    for data, fds in pieces:
        feed.receive(data, fds)
    if eof:
        feed.decoder.receive_eof()
        feed.receive(b"")
    feed.close()
