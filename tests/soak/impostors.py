"""Workers that threads of the campaign play: some lie, go silent, or never load their model.

A liar answers for the jobs of other workers with LIE, which must never reach a client.
"""

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.soak.ledger import Ledger
from tests.support.played import heard, jobs, serve_fronts
from tests.support.raw import HELLO, Peer, done

LIE = "a lie"
Trick = Callable[[Peer, int, int], None]
_LONG = 100_000


class Impostor:
    """Worker `name` on its listener. Between two tricks it does `honesty` jobs well; with None it
    is always honest."""

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
        # By job's id: the number of tricks played while the worker had the job.
        self.casualties: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        serve_fronts(self._listener, stop, lambda peer: self._live(peer, stop))

    def _live(self, peer: Peer, stop: threading.Event) -> None:
        lies = self._honesty is not None and self._chance.random() < 0.3
        if lies and self._play(_AT_THE_DOOR, peer, {"key": 0}) != _SLOW_LOADER:
            return
        peer.send("hello", HELLO)
        left = None if self._honesty is None else self._chance.randint(1, self._honesty)
        for job, audio in jobs(peer, stop):
            self._in_hand.add(job["key"])
            try:
                if left == 0:
                    self._play(_WITH_A_JOB, peer, job)
                    return
                self._answer(peer, job, audio)
            finally:
                self._in_hand.discard(job["key"])
            left = None if left is None else left - 1

    def _play(self, tricks: dict[str, Trick], peer: Peer, job: dict[str, Any]) -> str:
        """Plays one of the tricks, and returns its name."""
        name, trick = self._chance.choice([*tricks.items()])
        self._ledger.trick(f"worker: {name}")
        key = job["key"]
        # A job that another worker runs now, if there is one; else an old or a future key.
        others = sorted(self._in_hand - {key}) or [max(0, key - 3), key + 1, 2**40]
        foreign = self._chance.choice(others)
        self.casualties[job.get("job_id", "")] += 1
        self._ledger.fault(
            name, f"worker {self._name}", os.getpid(), lambda: trick(peer, key, foreign)
        )
        # The front may read the lie before the end of the connection, or find both at once.
        time.sleep(self._chance.choice([0, 0.1]))
        return name

    def _answer(self, peer: Peer, job: dict[str, Any], audio: bytes) -> None:
        key, segment = job["key"], _segment(heard(audio))
        time.sleep(self._chance.uniform(0.2, 1.5) if len(audio) > _LONG else 0.02)
        if job["stream"]:
            peer.send("segment", {"key": key, "index": 0, "segment": segment})
        peer.send("done", {**done(key, segment["text"]), "segments": [segment]})


def _segment(text: str) -> dict[str, Any]:
    return {"id": 0, "start": 0.0, "end": 1.0, "text": text}


def _load_slowly(peer: Peer, key: int, foreign: int) -> None:
    peer.send("loading", {"pid": os.getpid(), "model": "fake"})
    time.sleep(1)


def _answer_twice(peer: Peer, key: int, foreign: int) -> None:
    peer.send("failed", {"key": key, "code": "bad-audio", "text": LIE, "fatal": True})
    peer.send("done", done(key, LIE))


def _greet_twice(peer: Peer, key: int, foreign: int) -> None:
    peer.send("hello", HELLO)
    peer.send("hello", {**HELLO, "model": "another"})


# A trick takes the key of the worker's own job and that of a job that the worker does not have.
# After it the worker ends the connection, except for a slow loader.
_SLOW_LOADER = "slow loader"
_ANY_TIME: dict[str, Trick] = {
    "hangs up": lambda peer, key, foreign: None,
    "speaks garbage": lambda peer, key, foreign: peer.send_raw(b"\x00\xff garbage\n" * 10),
    "goes silent": lambda peer, key, foreign: time.sleep(1.5),
    "answers unasked": lambda peer, key, foreign: peer.send("done", done(foreign, LIE)),
}
_AT_THE_DOOR = _ANY_TIME | {
    _SLOW_LOADER: _load_slowly,
    "cannot load": lambda peer, key, foreign: peer.send("cannot-load", {"text": "no such model"}),
    "speaks another version": lambda peer, key, foreign: peer.send(
        "hello", {**HELLO, "version": 99}
    ),
}
_WITH_A_JOB = _ANY_TIME | {
    "answers half": lambda peer, key, foreign: peer.send_raw(
        b'{"type": "done", "data_length": 500}\n{"key": %d, "text": "a li' % key
    ),
    "answers twice": _answer_twice,
    "segments for another": lambda peer, key, foreign: peer.send(
        "segment", {"key": foreign, "index": 0, "segment": _segment(LIE)}
    ),
    "greets twice": _greet_twice,
    "sends descriptors": lambda peer, key, foreign: peer.send(
        "progress", {"key": key, "audio_seconds_done": 1.0}, fds=(0, 1)
    ),
    "answers nonsense": lambda peer, key, foreign: peer.send(
        "done", {**done(key, LIE), "audio_seconds": -1, "segments": "none"}
    ),
}
