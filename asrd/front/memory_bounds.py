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
# Of a live stream: its state, 200 words each that are pending and committed in its tail, with 2,000
# letters of up to four bytes, and two steps, of which one has a prompt of its own.
_LIVE = 128 * _KIB
_STEPS = 2
# The jobs that all workers have, or have given back, at once: an assumption, since that depends on
# the workers' own settings. 32 workers with the default `slots` have so many at most.
_RUNNING = 256
# The place from which a job goes on, with the options that it has there, and its record for the
# report of a crash.
_CHECKPOINT = 24 * _KIB + _OPTIONS
# A buffer that was partly read keeps its size until half of it is empty.
_SLACK = 2
# One answer of any size may always wait.
_LARGEST_ANSWER = frames.MAX_TRANSCRIPT_DATA
_PAGE = 4 * _KIB
# The connection itself, a recording, a payload, the audio of its steps, and those that wait for
# their event.
_DESCRIPTORS_OF_CLIENT = 3 + _STEPS + frames.MAX_FDS
# The same over TCP, which carries no descriptors.
_DESCRIPTORS_OF_STRANGER = 3 + _STEPS
# Listeners, two for each worker, standard streams, the event loop's own.
_DESCRIPTORS_AT_REST = 128


def _waiting(settings: FrontSettings) -> int:
    """Jobs in the queue: a user for whom nothing waits gets a place even if it is full."""
    return 2 * settings.queue_max


def _talking(settings: FrontSettings) -> int:
    """Connections that may send audio."""
    return settings.connections_max + settings.wyoming_connections_max


def memory(settings: FrontSettings) -> int:
    """Bytes of the process, without recordings."""
    clients = _talking(settings) * (_CONNECTION + _OPTIONS_OF_CONNECTION + _LIVE)
    status_clients = settings.status_connections_max * _CONNECTION
    kept = _SLACK * settings.unread_max_bytes + _LARGEST_ANSWER
    jobs = _waiting(settings) * _OPTIONS + _RUNNING * (_OPTIONS + _CHECKPOINT)
    # A growing buffer is an eighth larger than its contents.
    transcripts = settings.transcripts_max_bytes * 9 // 8
    return _AT_REST + clients + status_clients + kept + jobs + transcripts


def recordings(settings: FrontSettings) -> int:
    """Bytes of inline audio in memfds, in whole pages; they count as this service's memory."""
    number = (2 + _STEPS) * _talking(settings) + _waiting(settings) + _RUNNING
    return settings.spool_max_bytes + number * _PAGE


def descriptors(settings: FrontSettings) -> int:
    clients = settings.connections_max * _DESCRIPTORS_OF_CLIENT
    strangers = settings.wyoming_connections_max * _DESCRIPTORS_OF_STRANGER
    strangers += settings.status_connections_max
    jobs = _waiting(settings) + _RUNNING
    return clients + strangers + jobs + _DESCRIPTORS_AT_REST
