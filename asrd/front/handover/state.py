"""The state of a front as plain data. Descriptors are numbers: their places among those sent.

Times are in seconds of the monotonic clock, which both processes have.
"""

from dataclasses import dataclass
from typing import Any

from asrd.errors import FieldError
from asrd.wire import strict_json
from asrd.wire.client_events import Transcribe
from asrd.wire.fields import (
    dump,
    either,
    field,
    flag,
    identifier,
    integer,
    mapping,
    nested,
    number,
    parse,
    sequence,
    string,
)
from asrd.wire.frames import Partial
from asrd.wire.options import Options
from asrd.wire.records import NAME_MAX, TEXT_MAX, WEEK_S, AudioFormat, Checkpoint

# Changes with the meaning of any field below.
FORMAT = 1

_MANY = 1 << 20
_FD = integer(0, _MANY)
_SIZE = integer(0, 1 << 62)
_COUNT = integer(0, 1 << 31)
_TIME = number(-1e12, 1e12)
_SENTENCE = string(4096)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in a memfd that may still grow; without `fd`, why its audio was dropped."""

    fd: int | None = field(_FD, None)
    size: int = field(_SIZE, 0)
    too_large: bool = field(flag, False)
    problem: str = field(_SENTENCE, "")


@dataclass(frozen=True, slots=True)
class Announced:
    """The request of a stream."""

    transcribe: Transcribe = field(nested(Transcribe))
    options: Options = field(nested(Options))


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A stream that is arriving, with times for its next chunk and its end."""

    announced: Announced = field(nested(Announced))
    format: AudioFormat = field(nested(AudioFormat))
    audio: Recording = field(nested(Recording))
    pause_ends: float = field(_TIME)
    ends: float = field(_TIME)


@dataclass(frozen=True, slots=True)
class StreamState:
    """See `asrd.front.stream.Stream`."""

    current: Transcribe = field(nested(Transcribe))
    skipping: bool = field(flag)
    next: Announced | None = field(nested(Announced), None)
    arriving: OpenStream | None = field(nested(OpenStream), None)


@dataclass(frozen=True, slots=True)
class ClientState:
    """A connection. `output`: unread answers, as base64. `partial` is the event that is arriving,
    `payload` its audio if it is a recording of its own, and `waiting` its descriptors."""

    fd: int = field(_FD)
    door: str = field(identifier())
    output: str = field(string(1 << 30))
    partial: Partial = field(nested(Partial))
    stream: StreamState = field(nested(StreamState))
    knows_asrd: bool = field(flag)
    got_error: bool = field(flag)
    leaving: bool = field(flag)
    describing: bool = field(flag)
    payload: Recording | None = field(nested(Recording), None)
    waiting: tuple[int, ...] = field(sequence(_FD, 16), ())


@dataclass(frozen=True, slots=True)
class JobState:
    """A job without an answer, and its request: `client` is a place in `clients`. Without
    `wait_left` the job may wait until its own timeout."""

    client: int = field(_FD)
    job_id: str = field(identifier())
    audio: int = field(_FD)
    size: int = field(_SIZE)
    inline: bool = field(flag)
    format: AudioFormat = field(nested(AudioFormat))
    options: Options = field(nested(Options))
    max_audio_seconds: float = field(number(0, 1e9))
    stream: bool = field(flag)
    plain: bool = field(flag)
    user: int | str = field(either(string(NAME_MAX * 2), integer(0, 1 << 32), (int,)))
    arrival: float = field(_TIME)
    seconds: float = field(number(0, 1e12))
    attempts: int = field(_COUNT)
    deaths: int = field(_COUNT)
    kept: float = field(number(0, WEEK_S))
    work: float = field(number(0, 1e9))
    started_at: float = field(_TIME)
    load_left: float = field(_TIME)
    text: str = field(string(TEXT_MAX))
    segments: str = field(string(2 * TEXT_MAX))
    count: int = field(_COUNT)
    trace_id: str | None = field(identifier(), None)
    needs_model: str | None = field(string(NAME_MAX), None)
    model: str | None = field(string(NAME_MAX * 16), None)
    timeout: float | None = field(_TIME, None)
    wait_left: float | None = field(_TIME, None)
    checkpoint: Checkpoint | None = field(nested(Checkpoint), None)


@dataclass(frozen=True, slots=True)
class State:
    """`jobs` in the order in which they should start."""

    format: int = field(integer(FORMAT, FORMAT))
    clients: tuple[dict[str, Any], ...] = field(sequence(mapping, _MANY))
    jobs: tuple[dict[str, Any], ...] = field(sequence(mapping, _MANY))


def encode(clients: list[ClientState], jobs: list[JobState]) -> bytes:
    return strict_json.dumps(
        {"format": FORMAT, "clients": dump(clients), "jobs": dump(jobs)},
    )


def decode(raw: bytes) -> State:
    """Raises FieldError if this front can't understand it as a whole; `clients` and `jobs` are
    checked one by one (`parse`), so that one that is damaged costs no other its answer."""
    try:
        data = strict_json.loads(raw)
    except ValueError as problem:
        raise FieldError("state", f"is not JSON: {problem}") from None
    return parse(State, mapping("state", data))
