"""The codec of both hops: Wyoming's framing, with file descriptors attached to events.

    {"type": "...", "data": {...}, "data_length": N, "payload_length": N, "fds": N}\\n
    <data_length bytes: a JSON object, merged over "data">
    <payload_length bytes>

Without I/O: `receive` takes bytes and descriptors, `next_frame` returns the events. The rules:

1. A decoder is in HEADER, DATA or PAYLOAD of one event; after a ProtocolError it is BROKEN.
2. Descriptors queue in the order of their arrival. An event that declares N takes the first N when
   it is complete; fewer than N are an error.
3. Descriptors arrive with the bytes of their own event. A descriptor that is still queued when no
   byte is left after an event was not declared by any event: an error.
4. Payload bytes go to the sink that `open_sink` returned for this event, as they arrive.
5. A decoder begins no event before it has returned the previous one: a sink may depend on it.
6. While an event waits for more bytes, its data is kept as JSON: as objects it may be forty times
   as large.
"""

import dataclasses
import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from asrd.errors import ProtocolError
from asrd.version import __version__
from asrd.wire import strict_json
from asrd.wire.fields import choice, field, integer, mapping, string

# Long enough for Wyoming peers that put small data into the header line.
MAX_HEADER = 16 * 1024
# A client's data is names and prompts: far below a quarter of a megabyte.
MAX_DATA = 256 * 1024
# A transcript may hold the words of a recording of many hours.
MAX_TRANSCRIPT_DATA = 64 * 1024 * 1024
# One job has one descriptor; a pipelining client may queue those of the next jobs.
MAX_FDS = 4
# Two levels are in use (`audio`, Wyoming's `context`); deeper JSON is an attack on the parser.
MAX_DEPTH = 32
MAX_TYPE = 64
# Commas and opening brackets. A megabyte of them costs the parser 150 ms and 20 MB. The largest
# useful event has two thousand hints and the commas of two prompts.
MAX_VALUES = 8192
_LINE_STEP = 512


class Closable(Protocol):
    def close(self) -> None: ...


class Sink(Protocol):
    """The target of a payload. `close` is called if the event is never completed."""

    def write(self, data: memoryview, /) -> object: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Frame:
    """One event; `data` is a JSON object with unchecked fields.

    The receiver of the frame owns `fds` and `payload` and closes them.
    """

    type: str
    data: dict[str, Any]
    payload_length: int = 0
    payload: Sink | None = None
    fds: list[Any] = dataclasses.field(default_factory=list)

    def close(self) -> None:
        for fd in self.fds:
            fd.close()
        if self.payload is not None:
            self.payload.close()


@dataclass(frozen=True, slots=True)
class Partial:
    """The state of a decoder, as plain data: the event that is arriving, and the rest of the last
    read. `buffer` and `pending` are bytes as base64: of JSON, six would be needed for one."""

    state: str = field(choice("header", "data", "payload"))
    type: str = field(string(MAX_TYPE))
    data: dict[str, Any] = field(mapping)
    payload_length: int = field(integer(0, 1 << 62))
    data_length: int = field(integer(0, 1 << 62))
    fd_count: int = field(integer(0, MAX_FDS))
    missing: int = field(integer(0, 1 << 62))
    buffer: str = field(string(1 << 30))
    pending: str = field(string(1 << 30))


OpenSink = Callable[[Frame], Sink]


class _State(Enum):
    HEADER = "header"
    DATA = "data"
    PAYLOAD = "payload"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """The largest data and payload of one event in bytes, and its largest number of descriptors.

    `strict` also refuses duplicate keys and deep nesting. It is off for asrd's own answers, where a
    faster parser matters more.
    """

    data: int = MAX_DATA
    payload: int = 0
    strict: bool = True
    fds: int = MAX_FDS


class Decoder:
    """Decodes the bytes of one connection. Without `open_sink`, payloads are dropped."""

    def __init__(self, limits: FrameLimits, open_sink: OpenSink | None = None) -> None:
        self.limits = limits
        self._open_sink = open_sink
        self._state = _State.HEADER
        self._buffer = bytearray()
        self._fds: deque[Closable] = deque()
        self._event = Frame("", {})
        self._data_length = 0
        self._fd_count = 0
        self._missing = 0
        self._pending = memoryview(b"")
        self._parked: bytearray | None = None
        self._error: ProtocolError | None = None

    def __repr__(self) -> str:
        return f"<Decoder {self._state.value} buffered={len(self._buffer)} fds={len(self._fds)}>"

    @property
    def in_frame(self) -> bool:
        """True if an event has begun and is not complete."""
        return bool(self._buffer) or self._state in (_State.DATA, _State.PAYLOAD)

    @property
    def held(self) -> int:
        """Bytes kept for an incomplete event (after `keep`)."""
        return len(self._buffer) + len(self._parked or b"") + len(self._pending)

    def receive(self, data: memoryview | bytes, fds: Iterable[Closable] = ()) -> None:
        """Takes the result of one read. Never raises. The decoder owns the descriptors from now on.

        `data` must not change before `next_frame` has returned None or `keep` was called.
        """
        self._fds.extend(fds)
        self._pending = memoryview(data)
        if self._state is _State.BROKEN:
            self._drop()

    def keep(self) -> None:
        """Copies the rest of the last read, so that its buffer can be used again."""
        self._pending = memoryview(bytes(self._pending))

    def next_frame(self) -> Frame | None:
        """Returns the next complete event, None if more bytes are needed.

        Raises ProtocolError, and the same error in every later call.
        """
        if self._error is not None:
            raise self._error
        try:
            if len(self._fds) > MAX_FDS:
                raise ProtocolError(f"fds: more than {MAX_FDS} wait for their events")
            event = self._consume()
            if event is None and self._fds and not self.in_frame:
                raise ProtocolError("fds: a descriptor arrived that no event declared")
        except ProtocolError as error:
            self._break(error)
            raise
        return event

    def partial(self) -> tuple[Partial, Sink | None, list[Closable]]:
        """Returns the state for another decoder to go on from, the sink of the payload that is
        arriving, and the descriptors that wait for their event. Raises ProtocolError if broken."""
        if self._error is not None:
            raise self._error
        self._unpark()
        event, lengths = self._event, (self._data_length, self._fd_count, self._missing)
        rest = (b64encode(part).decode() for part in (self._buffer, self._pending))
        kind = event.type, event.data, event.payload_length
        return Partial(self._state.value, *kind, *lengths, *rest), event.payload, list(self._fds)

    def resume(self, partial: Partial, sink: Sink | None, fds: Iterable[Closable]) -> None:
        """Goes on from the state of another decoder. Raises ValueError."""
        self._event = Frame(partial.type, partial.data, partial.payload_length, sink)
        self._fds.extend(fds)
        self._buffer += b64decode(partial.buffer)
        self._pending = memoryview(b64decode(partial.pending))
        self._data_length, self._fd_count = partial.data_length, partial.fd_count
        self._missing, self._state = partial.missing, _State(partial.state)

    def receive_eof(self) -> None:
        """Notes that the peer closed its side: an incomplete event is an error."""
        if self._state is not _State.BROKEN and self.in_frame:
            self._break(ProtocolError("the connection ended in the middle of an event"))

    def close(self) -> None:
        """Closes the descriptors and the sink that were not handed out."""
        self._break(self._error or ProtocolError("closed"))

    def _break(self, error: ProtocolError) -> None:
        self._state = _State.BROKEN
        self._error = error
        self._buffer.clear()
        self._event.close()
        self._event = Frame("", {})
        self._parked = None
        self._drop()

    def _drop(self) -> None:
        self._pending = memoryview(b"")
        while self._fds:
            self._fds.popleft().close()

    def _consume(self) -> Frame | None:
        while True:
            if self._state is _State.HEADER:
                line = self._take_line()
                if line is None:
                    return None
                self._begin(_parse_object(line, "the header", strict=True))
            elif self._state is _State.DATA:
                self._buffer += self._take(self._data_length - len(self._buffer))
                if len(self._buffer) < self._data_length:
                    break
                self._end_data()
            else:
                part = self._take(self._missing)
                if part and self._event.payload is not None:
                    self._event.payload.write(part)
                self._missing -= len(part)
                if self._missing:
                    break
                return self._complete()
        self._park()
        return None

    def _park(self) -> None:
        if self._event.data:
            # A copy, since orjson's own bytes keep the room of sixteen times their length.
            self._parked = bytearray(strict_json.dumps(self._event.data))
            self._event.data = {}

    def _unpark(self) -> None:
        if self._parked is not None:
            self._event.data, self._parked = strict_json.loads(bytes(self._parked)), None

    def _take(self, count: int) -> memoryview:
        part, self._pending = self._pending[:count], self._pending[count:]
        return part

    def _take_line(self) -> bytes | None:
        # Searched in small steps, so that a payload behind a short header is never copied here.
        while self._pending and len(self._buffer) <= MAX_HEADER:
            step = bytes(self._pending[:_LINE_STEP])
            end = step.find(b"\n")
            self._buffer += self._take(len(step) if end < 0 else end + 1)
            if end >= 0 and len(self._buffer) <= MAX_HEADER + 1:
                line = bytes(self._buffer[:-1])
                self._buffer.clear()
                return line
        if len(self._buffer) > MAX_HEADER:
            raise ProtocolError(f"the header line is longer than {MAX_HEADER} bytes")
        return None

    def _begin(self, header: dict[str, Any]) -> None:
        kind = header.get("type")
        if not isinstance(kind, str) or not 0 < len(kind) <= MAX_TYPE:
            raise ProtocolError(f"type: must be a string of 1 to {MAX_TYPE} characters")
        data = header.get("data")
        if data is not None and not isinstance(data, dict):
            raise ProtocolError("data: must be an object")
        self._data_length = _length(header, "data_length", self.limits.data)
        self._missing = _length(header, "payload_length", self.limits.payload)
        if header.get("fds") and not self.limits.fds:
            raise ProtocolError("fds: no descriptor can be passed over this socket")
        self._fd_count = _length(header, "fds", self.limits.fds)
        self._event = Frame(kind, data or {}, payload_length=self._missing)
        self._state = _State.DATA

    def _end_data(self) -> None:
        self._unpark()
        if self._data_length:
            raw = bytes(self._buffer)
            self._buffer.clear()
            self._event.data.update(_parse_object(raw, "data", self.limits.strict))
        if self._missing and self._open_sink is not None:
            self._event.payload = self._open_sink(self._event)
        self._state = _State.PAYLOAD

    def _complete(self) -> Frame:
        self._unpark()
        if len(self._fds) < self._fd_count:
            raise ProtocolError(f"fds: {self._fd_count} declared, {len(self._fds)} arrived")
        event, self._event = self._event, Frame("", {})
        event.fds = [self._fds.popleft() for _ in range(self._fd_count)]
        self._state = _State.HEADER
        return event


def encode(
    kind: str, data: dict[str, Any] | bytes | None = None, payload_length: int = 0, fds: int = 0
) -> bytes:
    """Returns the header line and the data part of one event, of which `data` may be the JSON. The
    caller sends the payload next."""
    header: dict[str, Any] = {"type": kind, "version": __version__}
    body = b""
    if data:
        body = data if isinstance(data, bytes) else strict_json.dumps(data)
        header["data_length"] = len(body)
    if payload_length:
        header["payload_length"] = payload_length
    if fds:
        header["fds"] = fds
    return strict_json.dumps(header) + b"\n" + body


def _length(header: dict[str, Any], key: str, limit: int) -> int:
    value = header.get(key)
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise ProtocolError(f"{key}: must be a non-negative integer")
    if value > limit:
        raise ProtocolError(f"{key}: {value} is over the limit of {limit}")
    return value


def _parse_object(raw: bytes, what: str, strict: bool) -> dict[str, Any]:
    if strict and sum(map(raw.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ProtocolError(f"{what} has more than {MAX_VALUES} values")
    try:
        # The fast parser first: it refuses invalid JSON (NaN, bad UTF-8, lone surrogates).
        value = strict_json.loads(raw)
        if strict:
            _STRICT.decode(raw.decode())
            _refuse_depth(value)
        else:
            # A parser accepts deeper nesting than a writer, and the value may be written again.
            strict_json.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"{what} is not acceptable JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is not a JSON object")
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Linear: comparing all pairs of the keys of one event would take half a minute.
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"{key[:64]!r} occurs twice")
            seen.add(key)
    return found


# Made once: making a decoder takes as long as using it.
_STRICT = json.JSONDecoder(object_pairs_hook=_refuse_duplicates)


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
