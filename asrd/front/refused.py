"""The data of an event that was refused, which may be wrong in any way. Pure."""

from asrd.errors import FieldError
from asrd.wire import frames
from asrd.wire.fields import identifier

_GET_ID = identifier()
# Fields that only asrd has: a client that uses one understands errors.
_NOT_PLAIN = "job_id", "stream", "live", "end_of_speech_ms"


def id_in(frame: frames.Frame, key: str) -> str | None:
    """Returns an id that an answer may repeat: an invalid one would make the answer malformed."""
    try:
        value: str = _GET_ID(key, frame.data.get(key))
    except FieldError:
        return None
    return value


def asks_for_stream(frame: frames.Frame) -> bool:
    """Returns True for a `transcribe` without audio."""
    bare = frame.payload_length == 0 and not frame.fds
    return bare and frame.data.get("audio") is None


def looks_plain(frame: frames.Frame) -> bool:
    """Returns True for a `transcribe` with nothing but Wyoming's own fields."""
    return not any(frame.data.get(name) for name in _NOT_PLAIN)
