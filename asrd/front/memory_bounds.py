"""The most memory and descriptors that all clients together can take, computed from the settings.

`docs/security.md` has the sum item by item; `tests/process/test_memory.py` tests it.
"""

from asrd.settings import FrontSettings
from asrd.wire import frames

_KIB, _MIB = 1 << 10, 1 << 20

# The program at rest, with the buffer that all reads go into, and one event while it is parsed.
_AT_REST = 48 * _MIB
# Task, session, connection and decoder, and a small buffer.
_CONNECTION = 32 * _KIB
# A request's options: three prompts of 4,096 characters of up to four bytes, 1,000 times of clips,
# 256 tokens, 100 languages, and the names.
_OPTIONS = 104 * _KIB
# The stream that is arriving, and the `transcribe` of the next one.
_OPTIONS_OF_CONNECTION = 2 * _OPTIONS
# A buffer that was partly read keeps its size until half of it is empty.
_SLACK = 2
# One answer of any size may always wait.
_LARGEST_ANSWER = frames.MAX_TRANSCRIPT_DATA
_PAGE = 4 * _KIB
# The connection itself, a recording, a payload, and those that wait for their event.
_DESCRIPTORS_OF_CLIENT = 3 + frames.MAX_FDS
# Listeners, workers, standard streams, the event loop's own.
_DESCRIPTORS_AT_REST = 128


def memory(settings: FrontSettings) -> int:
    """Bytes of the process, without recordings."""
    clients = settings.connections_max * (_CONNECTION + _OPTIONS_OF_CONNECTION)
    status_clients = settings.status_connections_max * _CONNECTION
    kept = _SLACK * settings.unread_max_bytes + _LARGEST_ANSWER
    return _AT_REST + clients + status_clients + kept + settings.queue_max * _OPTIONS


def recordings(settings: FrontSettings) -> int:
    """Bytes of inline audio in memfds, in whole pages; they count as this service's memory."""
    number = 2 * settings.connections_max + settings.queue_max
    return settings.spool_max_bytes + number * _PAGE


def descriptors(settings: FrontSettings) -> int:
    clients = settings.connections_max * _DESCRIPTORS_OF_CLIENT
    return clients + settings.status_connections_max + settings.queue_max + _DESCRIPTORS_AT_REST
