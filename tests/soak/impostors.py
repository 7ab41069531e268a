"""Workers played by threads of the campaign, some of which lie, go silent, or never come up.

An honest one "hears" in an audio its SHA-256, so that each recording has a text of its own; a liar
answers for others with LIE, which must never reach anybody.
"""

import contextlib
import hashlib
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

from asrd.errors import ProtocolError
from tests.soak.ledger import Ledger
from tests.support.raw import HELLO, Peer, done

LIE = "a lie"
_TICK_SECONDS = 0.2
_LONG = 100_000


def heard(audio: bytes) -> str:
    return hashlib.sha256(audio).hexdigest()


class _Gone(Exception):
    """The front has closed the connection, or the campaign is over."""


class Impostor:
    """Listens as worker `name`; `honesty` is how many jobs it does well between two tricks, None
    for a worker that is always honest."""

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        ledger: Ledger,
        chance: random.Random,
        honesty: int | None,
        in_hand: set[int],
    ) -> None:
        """`in_hand`: the keys of the jobs of all workers, which they share to lie about."""
        self._name = name
        self._listener = listener
        self._ledger = ledger
        self._chance = chance
        self._honesty = honesty
        self._in_hand = in_hand
        self._stop = threading.Event()
        # By job's id: how often a trick was played with it in hand.
        self.casualties: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        self._stop = stop
        self._listener.settimeout(_TICK_SECONDS)
        while not stop.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            with Peer(sock) as peer:
                sock.settimeout(_TICK_SECONDS)
                try:
                    self._live(peer)
                except (OSError, ProtocolError, _Gone):
                    continue

    def _live(self, peer: Peer) -> None:
        if self._honesty is not None and self._chance.random() < 0.3:
            trick = self._chance.choice(_AT_THE_DOOR)
            self._play(trick, peer, {"key": 0})
            if trick is not slow_loader:
                return
        peer.send("hello", HELLO)
        left = None if self._honesty is None else self._chance.randint(1, self._honesty)
        with contextlib.closing(self._jobs(peer)) as jobs:
            for data, audio in jobs:
                if left == 0:
                    self._play(self._chance.choice(_WITH_A_JOB), peer, data)
                    return
                self._answer(peer, data, audio)
                left = None if left is None else left - 1

    def _play(self, trick: "Trick", peer: Peer, job: dict[str, Any]) -> None:
        name = trick.__name__.replace("_", " ")
        self._ledger.trick(f"worker: {name}")
        key = job["key"]
        # A job that another worker runs just now, if there is one: else an old key, or no key yet.
        others = sorted(self._in_hand - {key}) or [max(0, key - 3), key + 1, 2**40]
        foreign = self._chance.choice(others)

        def act() -> None:
            trick(peer, key, foreign)

        self.casualties[job.get("job_id", "")] += 1
        self._ledger.fault(name, f"worker {self._name}", os.getpid(), act)

    def _jobs(self, peer: Peer) -> Generator[tuple[dict[str, Any], bytes], None, None]:
        while True:
            event = self._receive(peer)
            if event.type != "job":
                continue
            (fd,) = event.fds
            with fd:
                audio = os.pread(fd.fileno(), 1 << 24, 0)
            key = event.data["key"]
            self._in_hand.add(key)
            try:
                yield event.data, audio
            finally:
                self._in_hand.discard(key)

    def _receive(self, peer: Peer) -> Any:
        while not self._stop.is_set():
            try:
                event = peer.receive()
            except TimeoutError:
                continue
            if event is None:
                break
            return event
        raise _Gone

    def _answer(self, peer: Peer, job: dict[str, Any], audio: bytes) -> None:
        key, text = job["key"], heard(audio)
        time.sleep(self._chance.uniform(0.2, 1.5) if len(audio) > _LONG else 0.02)
        segment = {"id": 0, "start": 0.0, "end": 1.0, "text": text}
        if job["stream"]:
            peer.send("segment", {"key": key, "index": 0, "segment": segment})
        peer.send("done", {**done(key, text), "segments": [segment]})


Trick = Callable[[Peer, int, int], None]
"""What a liar does, given its own job's key and somebody else's."""


def slow_loader(peer: Peer, key: int, foreign: int) -> None:
    peer.send("loading", {"pid": os.getpid(), "model": "fake"})
    time.sleep(1)


def cannot_load(peer: Peer, key: int, foreign: int) -> None:
    peer.send("cannot-load", {"text": "no such model"})


def hangs_up(peer: Peer, key: int, foreign: int) -> None:
    return


def speaks_garbage(peer: Peer, key: int, foreign: int) -> None:
    peer.send_raw(b"\x00\xff garbage\n" * 10)
    time.sleep(0.1)


def goes_silent(peer: Peer, key: int, foreign: int) -> None:
    time.sleep(1.5)


def answers_unasked(peer: Peer, key: int, foreign: int) -> None:
    peer.send("done", done(foreign, LIE))
    time.sleep(0.1)


def speaks_another_version(peer: Peer, key: int, foreign: int) -> None:
    peer.send("hello", {**HELLO, "version": 99})
    time.sleep(0.1)


def answers_half(peer: Peer, key: int, foreign: int) -> None:
    peer.send_raw(b'{"type": "done", "data_length": 500}\n{"key": %d, "text": "a li' % key)


def answers_twice(peer: Peer, key: int, foreign: int) -> None:
    peer.send("failed", {"key": key, "code": "bad-audio", "text": LIE, "fatal": True})
    peer.send("done", done(key, LIE))
    time.sleep(0.1)


def segments_for_another(peer: Peer, key: int, foreign: int) -> None:
    segment = {"id": 0, "start": 0.0, "end": 1.0, "text": LIE}
    peer.send("segment", {"key": foreign, "index": 0, "segment": segment})
    time.sleep(0.1)


def greets_twice(peer: Peer, key: int, foreign: int) -> None:
    peer.send("hello", HELLO)
    peer.send("hello", {**HELLO, "model": "another"})
    time.sleep(0.1)


def sends_descriptors(peer: Peer, key: int, foreign: int) -> None:
    peer.send("progress", {"key": key, "audio_seconds_done": 1.0}, b"", (0, 1))
    time.sleep(0.1)


def answers_nonsense(peer: Peer, key: int, foreign: int) -> None:
    peer.send("done", {**done(key, LIE), "audio_seconds": -1, "segments": "none"})
    time.sleep(0.1)


_AT_THE_DOOR: list[Trick] = [
    slow_loader,
    cannot_load,
    hangs_up,
    speaks_garbage,
    goes_silent,
    answers_unasked,
    speaks_another_version,
]
_WITH_A_JOB: list[Trick] = [
    hangs_up,
    speaks_garbage,
    goes_silent,
    answers_unasked,
    answers_half,
    answers_twice,
    segments_for_another,
    greets_twice,
    sends_descriptors,
    answers_nonsense,
]
