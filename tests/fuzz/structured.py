"""Fuzzing of running daemons: a burst of almost valid messages, then a look at how it stands.

What a burst says depends on its seed and number alone, so that one burst can be said again
(`--burst`); when each piece is read depends on the machine.
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

# A busy machine's; what is asked after each burst should take some milliseconds.
ANSWER_SECONDS = 5.0
# None of these may ever be logged: each would be our bug.
_SHAMEFUL = (
    "Traceback",
    "ResourceWarning",
    "a connection failed",
    "the front failed on",
    "Exception ignored",
)

T = TypeVar("T")


class Daemon(Protocol):
    """Under test. `look` raises AssertionError if it does not stand as it should."""

    pid: int
    # By how much its memory may grow.
    slack_kib: int
    # What came back, by kind.
    answers: Counter[str]

    @property
    def log(self) -> str: ...
    def burst(self, chance: random.Random) -> int:
        """Say mutated things; returns how many messages."""

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
        told = (
            f"seed {self.seed}: {self.messages} messages in {self.bursts} bursts, "
            f"{self.seconds:.0f} s; first {self.first}, last {self.last}, "
            f"slowest look {1000 * self.slowest_look:.0f} ms"
        )
        counts = ", ".join(f"{count} {kind}" for kind, count in self.answers.most_common())
        return f"{told}\n  answers: {counts}"


def fuzz(
    daemon: Daemon, seed: int, seconds: float, messages: int, burst: int | None = None
) -> Figures:
    """For so long and so many messages at most (0: no limit), or one burst alone.

    Raises AssertionError naming the burst that broke it.
    """
    figures = Figures(seed, answers=daemon.answers)
    daemon.look()
    before = _at_rest(daemon.pid), resident_kib(daemon.pid)
    figures.first = _told(*before)
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
    figures.last = _told(descriptors(daemon.pid), resident_kib(daemon.pid))
    return figures


def _told(fds: int, kib: int) -> str:
    return f"{kib / 1024:.1f} MiB and {fds} descriptors"


def _at_rest(pid: int) -> int:
    """The fewest descriptors of a moment: the last client may not be forgotten yet, and the front
    opens a directory now and then to look for workers."""
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
    # Until it has noticed that the last ones have gone.
    while (held := descriptors(daemon.pid)) > before[0] and time.monotonic() < patience:
        time.sleep(0.01)
    assert held <= before[0], f"{held} descriptors, {before[0]} before"
    grown = resident_kib(daemon.pid) - before[1]
    assert grown < daemon.slack_kib, f"it has grown by {grown} KiB"
    shame = [word for word in _SHAMEFUL if word in daemon.log]
    assert not shame, f"it logged {shame}"
    return took


class Listener:
    """Takes what a daemon says, and holds it to the daemon's own tables."""

    def __init__(
        self, table: dict[str, type], unchecked: frozenset[str] = frozenset(), audio: bool = False
    ) -> None:
        """`unchecked`: types without a table of fields, and fields that the daemon passes on as
        somebody else said them; `audio`: whether each `job` must have a descriptor."""
        self._decoder = frames.Decoder(
            frames.FrameLimits(data=frames.MAX_TRANSCRIPT_DATA, strict=False)
        )
        self._table = table
        self._unchecked = unchecked
        self._audio = audio

    def hear(self, data: memoryview, fds: list[OwnedFd], tell: Callable[[Any], None]) -> None:
        self._decoder.receive(data, fds)
        while (framed := self._decoder.next_frame()) is not None:
            with contextlib.closing(framed):
                assert len(framed.fds) == (self._audio and framed.type == StartJob.TYPE), framed
                assert framed.payload is None, framed
            tell(self._checked(framed))

    def _checked(self, framed: frames.Frame) -> Any:
        try:
            event = parse_event(self._table, framed.type, framed.data)
        except FieldError as error:
            passed_on = re.split(r"[.[]", error.field)[0] in self._unchecked
            assert passed_on, f"it said {framed.type} {framed.data}: {error}"
            return framed
        assert event is not None or framed.type in self._unchecked, f"it said {framed.type}"
        return event or framed

    def close(self) -> None:
        self._decoder.close()


def told_of(event: Any) -> str:
    """An event that was heard, or one without a table: its type, of an error the code."""
    if isinstance(event, frames.Frame):
        return event.type
    return str(getattr(event, "code", event.TYPE))


def drain(sock: socket.socket, listener: Listener, tell: Callable[[Any], None]) -> bool:
    """Hear what has come; False at the end of the connection."""
    sock.setblocking(False)
    buffer = memoryview(bytearray(fdsocket.READ_SIZE))
    try:
        while True:
            count, fds = fdsocket.receive_into(sock, buffer)
            if not count:
                return False
            listener.hear(buffer[:count], fds, tell)
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        sock.settimeout(ANSWER_SECONDS)
