"""Clients that send almost valid messages to a running front, a few at once."""

import contextlib
import random
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asrd.errors import Code
from asrd.wire.client_events import FROM_CLIENT, TO_CLIENT, AudioChunk, Error, Transcribe
from asrd.wire.options import Options
from tests.fuzz.almost import record
from tests.fuzz.mutants import Message, Mutants, source_of
from tests.fuzz.structured import ANSWER_SECONDS, Listener, drain, name_of
from tests.support.daemons import Front
from tests.support.played import heard, honest_worker
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
# `status` and `info` have no dataclass: they are the snapshots of asrd and of Wyoming.
_UNTYPED = frozenset({"status", "info"})


class RunningFront:
    """A front with an honest worker, under fire from a subclass."""

    slack_kib = 24 * 1024

    def __init__(self, home: Path, worker: str, config: str, work_seconds: float = 0) -> None:
        self._home = home
        self._front = Front(home, worker, config=config)
        self._honest = honest_worker(self._front.listeners[worker], work_seconds)
        self._worker = worker
        self._stack = contextlib.ExitStack()
        self.pid = self._front.process.pid
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Any:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._front)
            stack.enter_context(self._honest)
            self._front.wait_for_state("ready", name=self._worker)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.close()

    @property
    def log(self) -> str:
        return self._front.log

    def _status(self) -> dict[str, Any]:
        status = self._front.status()
        assert status["pid"] == self.pid
        return status


class FrontUnderFire(RunningFront):
    def __init__(self, home: Path) -> None:
        public = str(home / "status.sock")
        super().__init__(home, "0", f"{_SETTINGS}status_socket = '{public}'")
        self._doors = (self._front.socket,) * 4 + (public,)

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
                chance.choice(clients).send(mutants.message(), chance)
            for client in clients:
                client.leave(half=chance.random() < 0.3)
        return _MESSAGES

    def _note(self, event: Any) -> None:
        self.answers[name_of(event)] += 1
        assert not (isinstance(event, Error) and event.code == Code.INTERNAL), event

    def look(self) -> None:
        wait_for("the end of all connections", self._alone, ANSWER_SECONDS)
        with self._front.connect() as client:
            client.send("ping", {"text": "still there?"})
            assert client.expect("pong") == {"text": "still there?"}
            audio = _AUDIO + b"honest"
            client.send("transcribe", {"job_id": "a", "audio": _PCM}, audio)
            with memfd(audio) as fd:
                client.send("transcribe", {"job_id": "b", "audio": _PCM}, fds=(fd.fileno(),))
            for job_id in ("a", "b"):
                assert client.transcript(job_id)["text"] == heard(audio)

    def _alone(self) -> bool:
        status = self._status()
        return bool(status["connections"] == 1 and status["workers"][0]["state"] == "ready")


class _Client:
    """A client that connects again if the front has ended its connection."""

    def __init__(self, path: str, take: Callable[[Any], None]) -> None:
        self._path = path
        self._take = take
        self._connect()

    def _connect(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(ANSWER_SECONDS)
        self._sock.connect(self._path)
        self._listener = Listener(TO_CLIENT, _UNTYPED)

    def send(self, message: Message, chance: random.Random) -> None:
        with contextlib.closing(message), contextlib.suppress(ConnectionError):
            message.send(self._sock, chance)
        # Events from before the front closed the connection must still be checked.
        if not drain(self._sock, self._listener, self._take):
            self.close()
            self._connect()

    def leave(self, half: bool) -> None:
        """Does nothing, or ends its own direction alone and reads the remaining events."""
        if half:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
                while data := self._sock.recv(1 << 18):
                    self._listener.receive(memoryview(data), [], self._take)

    def close(self) -> None:
        self._listener.close()
        self._sock.close()
