"""Clients that say mutated things to a running front, a few at once."""

import contextlib
import random
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asrd.errors import Code
from asrd.wire.client_events import FROM_CLIENT, TO_CLIENT, AudioChunk, Error, Transcribe
from asrd.wire.records import Options
from tests.fuzz.almost import record
from tests.fuzz.honest import heard, honest_worker
from tests.fuzz.mutants import Message, Mutants, source_of
from tests.fuzz.structured import ANSWER_SECONDS, Listener, drain, told_of
from tests.support.daemons import Front
from tests.support.raw import memfd, wait_for

_SETTINGS = """
queue_max = 4
max_wait_seconds = 10
max_payload_bytes = 65536
max_file_bytes = 1048576
jobs_max_per_connection = 3
frame_timeout_seconds = 2
"""
_AUDIO = bytes(range(256)) * 125
_CONNECTIONS = 4
_MESSAGES = 24
_PCM = {"encoding": "pcm_s16le"}
# `status` and `info` have no dataclass: they are asrd's own snapshot and Wyoming's.
_UNTYPED = frozenset({"status", "info"})


class FrontUnderFire:
    slack_kib = 24 * 1024

    def __init__(self, home: Path) -> None:
        self._home = home
        self._stack = contextlib.ExitStack()
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> "FrontUnderFire":
        public = self._home / "status.sock"
        settings = f"{_SETTINGS}status_socket = '{public}'"
        with contextlib.ExitStack() as stack:
            self._front = Front(self._home, "0", config=settings)
            stack.enter_context(self._front)
            stack.enter_context(honest_worker(self._front.listeners["0"]))
            self._front.wait_for_state("ready")
            self._stack = stack.pop_all()
        self._doors = (self._front.socket,) * 4 + (str(public),)
        self.pid = self._front.process.pid
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.close()

    @property
    def log(self) -> str:
        return self._front.log

    def burst(self, chance: random.Random) -> int:
        weights = dict.fromkeys(FROM_CLIENT.values(), 1.0) | {Transcribe: 6.0, AudioChunk: 3.0}
        options = record(Options)

        def touch(cls: type, data: dict[str, Any]) -> None:
            if cls is Transcribe:
                data |= options(source_of(chance))
                if chance.random() < 0.5:
                    data |= {"audio": _PCM, "name": "honest", "job_id": str(chance.random())}

        mutants = Mutants(chance, weights, Transcribe, True, _AUDIO, self._home, touch)
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(
                    contextlib.closing(_Client(chance.choice(self._doors), self._note))
                )
                for _ in range(chance.randint(1, _CONNECTIONS))
            ]
            for _ in range(_MESSAGES):
                chance.choice(clients).say(mutants.message(), chance)
            for client in clients:
                client.leave(half=chance.random() < 0.3)
        return _MESSAGES

    def _note(self, event: Any) -> None:
        self.answers[told_of(event)] += 1
        assert not (isinstance(event, Error) and event.code == Code.INTERNAL), event

    def look(self) -> None:
        wait_for("the clients to be forgotten", self._alone, ANSWER_SECONDS)
        with self._front.connect() as client:
            client.send("ping", {"text": "still there?"})
            assert client.expect("pong") == {"text": "still there?"}
            audio = _AUDIO + b"honest"
            client.send("transcribe", {"job_id": "a", "audio": _PCM}, audio)
            with memfd(audio) as fd:
                client.send("transcribe", {"job_id": "b", "audio": _PCM}, fds=(fd.fileno(),))
            for job_id in ("a", "b"):
                answer = client.answer(job_id)
                assert answer.data.get("text") == heard(audio), answer.data

    def _alone(self) -> bool:
        told = self._front.status()
        assert told["pid"] == self.pid
        return bool(told["connections"] == 1 and told["workers"][0]["state"] == "ready")


class _Client:
    """Connects again where the front has had enough of it."""

    def __init__(self, path: str, tell: Callable[[Any], None]) -> None:
        self._path = path
        self._tell = tell
        self._connect()

    def _connect(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(ANSWER_SECONDS)
        self._sock.connect(self._path)
        self._listener = Listener(TO_CLIENT, _UNTYPED)

    def say(self, message: Message, chance: random.Random) -> None:
        with contextlib.closing(message), contextlib.suppress(ConnectionError):
            message.send(self._sock, chance)
        # What it said before it closed can still be read, and must be.
        if not drain(self._sock, self._listener, self._tell):
            self.close()
            self._connect()

    def leave(self, half: bool) -> None:
        """At once, or by saying that no more will come and hearing the rest."""
        if half:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
                while data := self._sock.recv(1 << 18):
                    self._listener.hear(memoryview(data), [], self._tell)

    def close(self) -> None:
        self._listener.close()
        self._sock.close()
