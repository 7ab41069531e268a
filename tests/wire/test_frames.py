"""The codec: round trips in random cuts, every limit, malformed and hostile input."""

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
from asrd.wire.frames import FrameLimits
from tests.support.feeding import BytesSink, Feed, payload_of


@pytest.fixture
def feed() -> Iterator[Feed]:
    fed = Feed()
    yield fed
    fed.close()


def header(**fields: Any) -> bytes:
    return json.dumps({"type": "ping", **fields}).encode() + b"\n"


def with_data(body: bytes) -> bytes:
    return header(data_length=len(body)) + body


def decoded(feed: Feed) -> list[tuple[str, dict[str, Any], bytes, int]]:
    return [(e.type, e.data, payload_of(e), len(e.fds)) for e in feed.events]


THREE = (
    frames.encode("ping", {"text": "é"})
    + frames.encode("audio-chunk", {"rate": 16000}, payload_length=5)
    + b"12\n45"
    + frames.encode("audio-stop")
)
DECODED = [
    ("ping", {"text": "é"}, b"", 0),
    ("audio-chunk", {"rate": 16000}, b"12\n45", 0),
    ("audio-stop", {}, b"", 0),
]


def test_data_that_is_json_already_is_sent_as_it_is() -> None:
    data = {"text": "é", "segments": [{"id": 1}]}
    raw = json.dumps(data).encode()
    feed = Feed(frames.FrameLimits())
    feed.receive(frames.encode("transcript", raw) + frames.encode("ping", b""))
    assert [event.data for event in feed.events] == [data, {}]
    assert frames.encode("transcript", raw).endswith(b"\n" + raw)


def test_encode_writes_a_short_header_without_defaults() -> None:
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


def test_event_that_has_begun_is_in_frame(feed: Feed) -> None:
    more = frames.encode("describe")
    feed.receive(THREE + more[:9])
    assert decoded(feed) == DECODED
    assert feed.decoder.in_frame
    feed.receive(more[9:])
    assert decoded(feed)[3:] == [("describe", {}, b"", 0)]
    assert not feed.decoder.in_frame


def test_data_part_is_merged_over_data_in_the_header(feed: Feed) -> None:
    body = b'{"b": 2, "c": 3}'
    feed.receive(header(data={"a": 1, "b": 1}, data_length=len(body)) + body)
    feed.receive(header(data=None, payload_length=None, fds=None, version=5, other=[]))
    assert [event.data for event in feed.events] == [{"a": 1, "b": 2, "c": 3}, {}]


def test_repr_shows_the_state(feed: Feed) -> None:
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
    """Cuts events into reads. The kernel delivers descriptors with the first byte of their event:
    it ends a read before bytes with more descriptors."""
    for raw, fds in sent:
        bounds = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
        for start, end in pairwise(bounds):
            yield raw[start:end], fds if start == 0 else 0


@given(FRAMES, st.lists(st.integers(1, 3000)) | st.just(list(range(3000))), st.booleans())
def test_events_survive_any_cuts(
    sent: list[tuple[str, dict[str, Any], bytes, int]], cuts: list[int], strict: bool
) -> None:
    feed = Feed(FrameLimits(payload=1 << 20, strict=strict))
    raws = [
        (frames.encode(kind, data, len(payload), fds) + payload, fds)
        for kind, data, payload, fds in sent
    ]
    for piece, fds in reads(raws, cuts):
        feed.receive(piece, fds)
    feed.decoder.receive_eof()
    assert feed.error is None
    assert decoded(feed) == sent
    assert [event.payload_length for event in feed.events] == [len(f[2]) for f in sent]
    feed.close()


# --- limits: at the bound, and one past it --------------------------------------------------------


def nested(depth: int) -> bytes:
    """An object with a list nested to this depth."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def line_of(length: int) -> bytes:
    """A header line of this length, without its newline."""
    start = b'{"type": "ping", "pad": "'
    return start + b"x" * (length - len(start) - 2) + b'"}'


@pytest.mark.parametrize("step", [1 << 20, 511])
def test_header_line_is_limited(step: int) -> None:
    for raw in (line_of(frames.MAX_HEADER) + b"\n", line_of(frames.MAX_HEADER + 1)):
        feed, accepted = Feed(), raw.endswith(b"\n")
        for start in range(0, len(raw), step):
            feed.receive(raw[start : start + step])
        assert len(feed.events) == accepted
        assert (str(feed.error) == "the header line is longer than 16384 bytes") != accepted
        feed.close()


@pytest.mark.parametrize(
    ("at_the_limit", "past_it", "error"),
    [
        (
            with_data(b'{"a": "' + b"x" * 71 + b'"}'),
            header(data_length=81),
            "data_length: 81 is over the limit of 80",
        ),
        (
            header(payload_length=10) + b"0123456789",
            header(payload_length=11),
            "payload_length: 11 is over the limit of 10",
        ),
        (header(type="x" * 64), header(type="x" * 65), "type: must be a string of"),
        (header(), header(fds=5), "fds: 5 is over the limit of 4"),
        (with_data(nested(32)), with_data(nested(33)), "data is not acceptable JSON: it is nested"),
        (
            header(data=json.loads(nested(31))),
            header(data=json.loads(nested(32))),
            "the header is not acceptable JSON: it is nested deeper than 32 levels",
        ),
    ],
)
def test_event_is_limited(at_the_limit: bytes, past_it: bytes, error: str) -> None:
    feed = Feed(FrameLimits(data=80, payload=10))
    feed.receive(at_the_limit)
    assert len(feed.events) == 1
    feed.receive(past_it)
    assert len(feed.events) == 1
    assert str(feed.error).startswith(error)
    feed.close()


# --- malformed: the error names the field ---------------------------------------------------------


@pytest.mark.parametrize("key", ["data_length", "payload_length", "fds"])
@pytest.mark.parametrize("value", ["-1", "1.0", "true", '"1"', "[]", "1" + "0" * 30])
def test_length_must_be_a_plain_integer(value: str, key: str, feed: Feed) -> None:
    feed.receive(f'{{"type": "ping", "{key}": {value}}}\n'.encode())
    assert str(feed.error) == f"{key}: must be a non-negative integer"


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"GET / HTTP/1.1\r\n", "the header is not acceptable JSON"),
        (b"[]\n", "the header is not a JSON object"),
        (b"{}\n", "type: must be a string of 1 to 64 characters"),
        (header(type=""), "type: must be a string"),
        (header(data=[]), "data: must be an object"),
        (b'{"type": "ping", "type": "pong"}\n', "the header is not acceptable JSON: 'type' occurs"),
        (b'{"type": "p", "data": {"a": 1, "a": 1}}\n', "the header is not acceptable JSON: 'a' oc"),
        (b'{"type": "ping"} {}\n', "the header is not acceptable JSON"),
        (b"\xef\xbb\xbf" + header(), "the header is not acceptable JSON"),
        (b'{"type": ' + b"[" * 2000 + b"\n", "the header is not acceptable JSON"),
        (b'{"x": ' + b"[" * 1020 + b"]" * 1020 + b"}\n", "the header is not acceptable JSON"),
        (with_data(b"[]"), "data is not a JSON object"),
        (with_data(b"{}x"), "data is not acceptable JSON"),
        (with_data(b'{"a": 1,"a": 2}'), "data is not acceptable JSON: 'a' occurs"),
        (with_data(b'{"a": ' + b"9" * 10_000 + b"}"), "data is not acceptable JSON"),
    ],
)
def test_malformed_event_is_an_error(raw: bytes, error: str, feed: Feed) -> None:
    feed.receive(raw)
    assert feed.events == []
    assert str(feed.error).startswith(error)


def test_long_duplicate_key_is_shortened_in_the_error(feed: Feed) -> None:
    key = "k" * 5000
    feed.receive(f'{{"type": "x", "{key}": 1, "{key}": 1}}\n'.encode())
    assert len(str(feed.error)) < 200


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        (b'{"a": 1, "a": 2}', True),
        (nested(200), True),
        (b'{"a": NaN}', False),
        (b"[]", False),
        # It can be read, but not be written again for the client.
        (nested(300), False),
    ],
)
def test_checks_that_remain_without_strict(body: bytes, accepted: bool) -> None:
    feed = Feed(FrameLimits(strict=False))
    feed.receive(with_data(body))
    assert bool(feed.events) == accepted == (feed.error is None)
    feed.close()


# --- after an error, and at the end ---------------------------------------------------------------


def test_error_follows_the_events_before_it_and_stays(feed: Feed) -> None:
    feed.receive(THREE + b"rubbish\n" + THREE, fds=1)
    feed.receive(THREE, fds=2)
    feed.decoder.receive_eof()
    assert decoded(feed) == DECODED
    assert repr(feed.decoder) == "<Decoder broken buffered=0 fds=0>"
    with pytest.raises(ProtocolError, match="the header is not acceptable JSON"):
        feed.decoder.next_frame()


@pytest.mark.parametrize(
    "begun",
    [b"{", header(data_length=5), header(data_length=5) + b"{}", header(payload_length=5) + b"12"],
)
def test_end_inside_an_event_is_an_error(begun: bytes, feed: Feed) -> None:
    feed.receive(THREE + begun)
    assert feed.decoder.in_frame
    feed.decoder.receive_eof()
    with pytest.raises(ProtocolError, match="ended in the middle of an event"):
        feed.decoder.next_frame()


def test_closed_decoder_takes_nothing_more(feed: Feed) -> None:
    feed.receive(header(payload_length=5) + b"12", fds=1)
    feed.decoder.close()
    feed.decoder.close()
    feed.receive(b"345", fds=1)
    assert str(feed.error) == "closed"


# --- descriptors ----------------------------------------------------------------------------------


def test_each_event_takes_its_declared_descriptors(feed: Feed) -> None:
    feed.receive(header(fds=2), fds=2)
    feed.receive(header(fds=1) + header(), fds=1)
    # The first one's descriptor waits for its payload; the second one's is queued behind it.
    feed.receive(header(payload_length=6, fds=1) + b"123", fds=1)
    feed.receive(b"456" + header(fds=1), fds=1)
    assert [len(event.fds) for event in feed.events] == [2, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("raw", "fds", "error"),
    [
        (header(fds=2), 1, "fds: 2 declared, 1 arrived"),
        (header(fds=1), 2, "fds: a descriptor arrived that no event declared"),
        (b"", 1, "fds: a descriptor arrived that no event declared"),
    ],
)
def test_undeclared_or_missing_descriptor_is_an_error(
    raw: bytes, fds: int, error: str, feed: Feed
) -> None:
    feed.receive(raw, fds)
    assert str(feed.error) == error


def test_waiting_descriptors_are_limited(feed: Feed) -> None:
    feed.receive(header(fds=4)[:-1], fds=4)
    assert feed.error is None
    feed.receive(b"", fds=1)
    assert str(feed.error) == "fds: more than 4 wait for their events"


def test_event_closes_the_rest_of_its_descriptors(feed: Feed) -> None:
    feed.receive(header(fds=2, payload_length=2) + b"ab", fds=2)
    event = feed.events.pop()
    event.fds.pop().close()
    event.close()


def test_kept_bytes_survive_a_change_of_the_buffer(feed: Feed) -> None:
    buffer = bytearray(THREE)
    feed.decoder.receive(memoryview(buffer))
    while (event := feed.decoder.next_frame()) is not None:
        feed.events.append(event)
        feed.decoder.keep()
        buffer[:] = b"x" * len(buffer)
    assert decoded(feed) == DECODED


# --- sinks ----------------------------------------------------------------------------------------


def test_rule_5_sink_is_opened_after_the_previous_event() -> None:
    seen: list[str] = []

    def open_sink(event: frames.Frame) -> frames.Sink:
        seen.append(f"open {event.type} {event.data}")
        return BytesSink()

    decoder = frames.Decoder(FrameLimits(payload=100), open_sink)
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


def test_payload_goes_to_its_sink_as_it_arrives() -> None:
    sink = BytesSink()
    decoder = frames.Decoder(FrameLimits(payload=100), lambda event: sink)
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


# --- any input: events or a protocol error, and nothing is lost -----------------------------------

PARTS = st.sampled_from(
    [
        *(b"{", b"}", b"\n", b'"data_length": ', b"[" * 40, b"\xff\x00"),
        b'{"type": "ping"}\n',
        b'{"type": "x", "data_length": 2}\n{}',
        b'{"type": "x", "payload_length": 3, "fds": 1}\nabc',
        b'{"type": "x", "data_length": 99999999999}\n',
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
    feed = Feed(FrameLimits(data=100, payload=100, strict=strict))
    for data, fds in pieces:
        feed.receive(data, fds)
    if eof:
        feed.decoder.receive_eof()
        feed.receive(b"")
    feed.close()
