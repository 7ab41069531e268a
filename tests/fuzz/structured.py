"""Fuzzing of running daemons: a burst of almost valid messages, then a check of the daemon.

The seed and its number alone determine a burst, so that it can be repeated (`--burst`); the moments
at which its pieces are read depend on the machine.
"""

import contextlib
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol, TypeVar

from asrd.errors import FieldError, ProtocolError
from asrd.wire import fdsocket, frames
from asrd.wire.fds import OwnedFd
from asrd.wire.fields import parse_event
from asrd.wire.worker_events import StartJob
from tests.support.daemons import alive, descriptors, resident_kib

# The limit on a busy machine; a check takes some milliseconds.
ANSWER_SECONDS = 5.0
# Each of these in the log means a bug.
_BUGS = (
    "Traceback",
    "ResourceWarning",
    "a connection failed",
    "the front failed on",
    "Exception ignored",
)

T = TypeVar("T")


class Daemon(Protocol):
    """A daemon under test. `look` checks it, and raises AssertionError if a check fails."""

    pid: int
    # The growth of its memory that is allowed.
    slack_kib: int
    # The number of its events by type or error code.
    answers: Counter[str]

    @property
    def log(self) -> str: ...
    def burst(self, chance: random.Random) -> int:
        """Sends almost valid messages, and returns their number."""

    def look(self) -> None: ...
    def __enter__(self: T) -> T: ...
    def __exit__(self, *problem: Any) -> None: ...


@dataclass
class Figures:
    seed: int
    bursts: int = 0
    messages: int = 0
    seconds: float = 0.0
    slowest_look: float = 0.0
    first: str = ""
    last: str = ""
    answers: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        totals = (
            f"seed {self.seed}: {self.messages} messages in {self.bursts} bursts, "
            f"{self.seconds:.0f} s; first {self.first}, last {self.last}, "
            f"slowest look {1000 * self.slowest_look:.0f} ms"
        )
        counts = ", ".join(f"{count} {kind}" for kind, count in self.answers.most_common())
        return f"{totals}\n  answers: {counts}"


def fuzz(
    daemon: Daemon, seed: int, seconds: float, messages: int, burst: int | None = None
) -> Figures:
    """Sends bursts for at most `seconds` and `messages` (0: no limit), or one burst alone.

    Raises AssertionError that names the burst after which a check failed.
    """
    figures = Figures(seed, answers=daemon.answers)
    daemon.look()
    before = _at_rest(daemon.pid), resident_kib(daemon.pid)
    figures.first = _held(*before)
    started = time.monotonic()
    for number in count(burst or 0):
        try:
            figures.messages += daemon.burst(random.Random(f"{seed} {number}"))
            figures.slowest_look = max(figures.slowest_look, _look(daemon, before))
        except (AssertionError, OSError, ProtocolError) as error:
            tail = daemon.log[-4000:]
            raise AssertionError(f"seed {seed}, burst {number}: {error!r}\n{tail}") from error
        figures.bursts += 1
        figures.seconds = time.monotonic() - started
        enough = 0 < seconds <= figures.seconds or 0 < messages <= figures.messages
        if burst is not None or enough:
            break
    figures.last = _held(descriptors(daemon.pid), resident_kib(daemon.pid))
    return figures


def _held(fds: int, kib: int) -> str:
    return f"{kib / 1024:.1f} MiB and {fds} descriptors"


def _at_rest(pid: int) -> int:
    """The fewest descriptors within a moment: the front may not have closed the last client yet,
    and opens a directory now and then to look for workers."""
    held = descriptors(pid)
    for _ in range(20):
        time.sleep(0.01)
        held = min(held, descriptors(pid))
    return held


def _look(daemon: Daemon, before: tuple[int, int]) -> float:
    assert alive(daemon.pid), "it is dead"
    started = time.monotonic()
    daemon.look()
    took = time.monotonic() - started
    patience = time.monotonic() + ANSWER_SECONDS
    # The daemon needs a moment to notice that the last peers have disconnected.
    while (held := descriptors(daemon.pid)) > before[0] and time.monotonic() < patience:
        time.sleep(0.01)
    assert held <= before[0], f"{held} descriptors, {before[0]} before"
    grown = resident_kib(daemon.pid) - before[1]
    assert grown < daemon.slack_kib, f"it has grown by {grown} KiB"
    bugs = [word for word in _BUGS if word in daemon.log]
    assert not bugs, f"it logged {bugs}"
    return took


class Listener:
    """Decodes a daemon's events, and checks them against its own declarations."""

    def __init__(
        self, table: dict[str, type], unchecked: frozenset[str] = frozenset(), audio: bool = False
    ) -> None:
        """`unchecked`: types without declared fields, and fields that the daemon passes on from
        another peer. With `audio`, each `job` must have a descriptor."""
        self._decoder = frames.Decoder(
            frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False)
        )
        self._table = table
        self._unchecked = unchecked
        self._audio = audio

    def receive(self, data: memoryview, fds: list[OwnedFd], take: Callable[[Any], None]) -> None:
        self._decoder.receive(data, fds)
        while (frame := self._decoder.next_frame()) is not None:
            with contextlib.closing(frame):
                assert len(frame.fds) == (self._audio and frame.type == StartJob.TYPE), frame
                assert frame.payload is None, frame
            take(self._checked(frame))

    def _checked(self, frame: frames.Frame) -> Any:
        try:
            event = parse_event(self._table, frame.type, frame.data)
        except FieldError as error:
            passed_on = re.split(r"[.[]", error.field)[0] in self._unchecked
            assert passed_on, f"it sent {frame.type} {frame.data}: {error}"
            return frame
        assert event is not None or frame.type in self._unchecked, f"it sent {frame.type}"
        return event or frame

    def close(self) -> None:
        self._decoder.close()


def name_of(event: Any) -> str:
    """The type of an event or a frame, or the code of an error."""
    if isinstance(event, frames.Frame):
        return event.type
    return str(getattr(event, "code", event.TYPE))


def drain(sock: socket.socket, listener: Listener, take: Callable[[Any], None]) -> bool:
    """Takes the events that have arrived; False at the end of the connection."""
    sock.setblocking(False)
    buffer = memoryview(bytearray(fdsocket.READ_SIZE))
    try:
        while True:
            count, fds = fdsocket.receive_into(sock, buffer)
            if not count:
                return False
            listener.receive(buffer[:count], fds, take)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        sock.settimeout(ANSWER_SECONDS)
