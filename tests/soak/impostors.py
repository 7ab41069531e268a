"""Workers that threads of the campaign play: some lie, go silent, or never load their model.

A liar answers for the jobs of other workers with LIE, which must never reach a client. Each job has
four windows, so that another worker goes on in the middle of one that an impostor has left.
"""

import os
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from asrd.wire.turn_word import TurnWord
from tests.soak.ledger import Ledger
from tests.support.played import heard, jobs, serve_fronts
from tests.support.raw import HELLO, Peer, done

LIE = "a lie"
Trick = Callable[[Peer, int, int], None]
_LONG = 100_000
_WINDOWS = 4
# By job's id: the pids of the impostors that played tricks since its last window.
Casualties = defaultdict[str, list[int]]


class Impostor:
    """Worker `name` on its listener. Between two tricks it does `honesty` jobs well; with None it
    is always honest. One of several `slots` says whose turn it is, so that its end is blamed on
    that job alone."""

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        ledger: Ledger,
        chance: random.Random,
        honesty: int | None,
        in_hand: set[int],
        casualties: Casualties,
        slots: int = 1,
    ) -> None:
        """`in_hand`: the keys of the jobs of all workers, which they share to lie about."""
        self._name = name
        self._listener = listener
        self._ledger = ledger
        self._chance = chance
        self._honesty = honesty
        self._in_hand = in_hand
        self._casualties = casualties
        self._slots = slots

    def run(self, stop: threading.Event) -> None:
        serve_fronts(self._listener, stop, lambda peer: self._live(peer, stop))

    def _live(self, peer: Peer, stop: threading.Event) -> None:
        lies = self._honesty is not None and self._chance.random() < 0.3
        if lies and self._play(_AT_THE_DOOR, peer, {"key": 0}) != _SLOW_LOADER:
            return
        word = TurnWord.create()
        try:
            fds = (word.fd.fileno(),) if self._slots > 1 else ()
            peer.send("hello", {**HELLO, "slots": self._slots}, fds=fds)
            self._serve(peer, word, stop)
        finally:
            word.close()

    def _serve(self, peer: Peer, word: TurnWord, stop: threading.Event) -> None:
        left = None if self._honesty is None else self._chance.randint(1, self._honesty)
        for job, audio in jobs(peer, stop):
            word.write(job["key"])
            self._in_hand.add(job["key"])
            try:
                if not self._answer(peer, job, audio, tricky=left == 0):
                    return
            finally:
                self._in_hand.discard(job["key"])
            word.write(0)
            left = None if left is None else left - 1

    def _play(self, tricks: dict[str, Trick], peer: Peer, job: dict[str, Any]) -> str:
        """Plays one of the tricks, and returns its name."""
        name, trick = self._chance.choice([*tricks.items()])
        self._ledger.trick(f"worker: {name}")
        key = job["key"]
        # A job that another worker runs now, if there is one; else an old or a future key. Not the
        # next one: that may be a job of this worker which it has not read yet, and of its own jobs
        # a worker can say anything.
        others = sorted(self._in_hand - {key}) or [max(0, key - 3), key + 1000, 2**40]
        foreign = self._chance.choice(others)
        self._ledger.fault(
            name, f"worker {self._name}", os.getpid(), lambda: trick(peer, key, foreign)
        )
        # The front may read the lie before the end of the connection, or find both at once.
        time.sleep(self._chance.choice([0, 0.1]))
        return name

    def _answer(self, peer: Peer, job: dict[str, Any], audio: bytes, tricky: bool) -> bool:
        """Goes on with the job from its checkpoint. Returns False after a trick in one of its
        windows."""
        text, key = heard(audio), job["key"]
        first = (job.get("resume") or {"segments": 0})["segments"]
        trick_in = self._chance.randrange(first, _WINDOWS) if tricky else -1
        for number in range(first, _WINDOWS):
            time.sleep(self._chance.uniform(0.05, 0.4) if len(audio) > _LONG else 0.005)
            if number == trick_in:
                self._blame(job)
                self._play(_WITH_A_JOB, peer, job)
                return False
            segment = _segment(text, number)
            if number == _WINDOWS - 1:
                peer.send("done", {**done(key, segment["text"]), "segments": [segment]})
            else:
                self._casualties.pop(job["job_id"], None)
                peer.send("window", _window(key, number + 1, segment))
        return True

    def _blame(self, job: dict[str, Any]) -> None:
        died = self._casualties[job["job_id"]]
        died.append(os.getpid())
        if len(died) > self._ledger.limits.attempts:
            self._ledger.fail(f"job {job['job_id']} ran again after {len(died) - 1} deaths")


def _segment(text: str, number: int) -> dict[str, Any]:
    part = len(text) // _WINDOWS
    own = text[number * part : (number + 1) * part]
    return {"id": number, "start": float(number), "end": number + 1.0, "text": own}


def _window(key: int, done: int, segment: dict[str, Any]) -> dict[str, Any]:
    checkpoint = {"frame": 100 * done, "seconds": float(done), "segments": done}
    return {"key": key, "checkpoint": checkpoint, "text": segment["text"], "segments": [segment]}


def _load_slowly(peer: Peer, key: int, foreign: int) -> None:
    peer.send("loading", {"pid": os.getpid(), "model": "fake"})
    time.sleep(1)


def _answer_twice(peer: Peer, key: int, foreign: int) -> None:
    peer.send("failed", {"key": key, "code": "bad-audio", "text": LIE, "fatal": True})
    peer.send("done", done(key, LIE))


def _greet_twice(peer: Peer, key: int, foreign: int) -> None:
    peer.send("hello", HELLO)
    peer.send("hello", {**HELLO, "model": "another"})


_LIE = {"id": 0, "start": 0.0, "end": 1.0, "text": LIE}

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
    "a window for another": lambda peer, key, foreign: peer.send(
        "window", _window(foreign, 1, _LIE)
    ),
    "a window too many": lambda peer, key, foreign: peer.send("window", _window(key, 9, _LIE)),
    "greets twice": _greet_twice,
    "sends descriptors": lambda peer, key, foreign: peer.send(
        "progress", {"key": key, "audio_seconds_done": 1.0}, fds=(0, 1)
    ),
    "answers nonsense": lambda peer, key, foreign: peer.send(
        "done", {**done(key, LIE), "audio_seconds": -1, "segments": "none"}
    ),
}
