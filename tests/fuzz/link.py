"""Workers that send almost valid messages to a running front, in addition to an honest one."""

import contextlib
import random
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from asrd.errors import Code
from asrd.wire import frames, worker_events
from asrd.wire.client_events import TO_CLIENT
from asrd.wire.fields import dump
from tests.fuzz.front import RunningFront
from tests.fuzz.mutants import Mutants
from tests.fuzz.structured import ANSWER_SECONDS, Listener, drain, name_of
from tests.support.played import heard
from tests.support.raw import HELLO, Peer, wait_for

_SETTINGS = """
queue_max = 64
queue_max_per_user = 64
max_wait_seconds = 10
max_run_seconds = 5
max_attempts = 3
"""
_PCM = {"encoding": "pcm_s16le"}
_LIARS = 12
# The most connections that a liar accepts, and the most messages that it sends on each.
_LIVES = 8
_MESSAGES = 24
_JOBS = 40
_PAUSE_SECONDS = 0.01
# The honest worker is slow, so that the others get jobs too; they wait so long for one.
_WORK_SECONDS = 0.05
_WAIT_SECONDS = 0.3
# After some of these the front avoids a worker for a while, and after `done` it has no job.
_WEIGHTS: dict[type, float] = {
    worker_events.Loading: 0.2,
    worker_events.Hello: 0.2,
    worker_events.CannotLoad: 0.02,
    worker_events.Bye: 0.05,
    worker_events.JobWindow: 5.0,
    worker_events.JobProgress: 5.0,
    worker_events.Done: 1.0,
    worker_events.Failed: 0.5,
}
# The front passes segments on unread; the client's library checks them.
_PASSED_ON = frozenset({"segment", "segments"})


class LinkUnderFire(RunningFront):
    def __init__(self, home: Path) -> None:
        super().__init__(home, "honest", _SETTINGS, _WORK_SECONDS)
        self._bursts = 0

    def burst(self, chance: random.Random) -> int:
        """Uses new workers each time: the front waits longer and longer for one that lies."""
        self._bursts += 1
        names = [f"liar-{self._bursts}-{n}" for n in range(_LIARS)]
        liars = [
            _Liar(self._front.listen(name), random.Random(chance.random()), self._home)
            for name in names
        ]
        wait_for("the liars in the status", lambda: {*names} <= self._states().keys())
        with ThreadPoolExecutor(_LIARS) as threads, self._front.connect() as client:
            lives = [threads.submit(liar.run) for liar in liars]
            self._be_served(client, chance)
            messages = sum(life.result() for life in lives)
        for name in names:
            (self._front.worker_dir / f"{name}.sock").unlink()
        return messages

    def _be_served(self, client: Peer, chance: random.Random) -> None:
        """Checks that each job gets one answer, and the right one from the honest worker."""
        audios = {f"job-{n}": chance.randbytes(2 * chance.randint(1, 2000)) for n in range(_JOBS)}
        listener = Listener(TO_CLIENT, _PASSED_ON)
        answered: dict[str, Any] = {}

        def take(event: Any) -> None:
            name = name_of(event)
            self.answers[name] += 1
            data = event.data if isinstance(event, frames.Frame) else dump(event)
            if name in ("transcript", *Code):
                assert data["job_id"] not in answered, f"answered twice: {data}"
                answered[data["job_id"]] = data

        for job_id, audio in audios.items():
            client.send("transcribe", {"job_id": job_id, "audio": _PCM, "stream": True}, audio)
            time.sleep(chance.random() * _PAUSE_SECONDS)
        with contextlib.closing(listener):
            wait_for(
                "every job's answer",
                lambda: drain(client.sock, listener, take) and len(answered) == len(audios),
            )
        for job_id, data in answered.items():
            if data.get("worker") == "honest":
                # It has another model than the liars, so it goes on with no job of theirs.
                assert data["text"] == heard(audios[job_id]), data

    def look(self) -> None:
        wait_for("the liars to leave the status", self._alone, ANSWER_SECONDS)
        with self._front.connect() as client:
            client.send("transcribe", {"job_id": "a", "audio": _PCM}, b"honest")
            assert client.transcript("a")["text"] == heard(b"honest")

    def _alone(self) -> bool:
        return self._states() == {"honest": "ready"} and self._front.status()["connections"] == 1

    def _states(self) -> dict[str, str]:
        return {worker["name"]: worker["state"] for worker in self._status()["workers"]}


class _Liar:
    """A worker that lies; it closes its listener."""

    def __init__(self, listener: socket.socket, chance: random.Random, home: Path) -> None:
        self._listener = listener
        self._chance = chance
        self._keys: list[int] = []
        # By key: the last window's frame, and the number of segments so far.
        self._places: dict[int, tuple[int, int]] = {}
        self._mutants = Mutants(chance, _WEIGHTS, None, False, b"audio", home, self._touch)
        self._sent = 0

    def _touch(self, cls: type, data: dict[str, Any]) -> None:
        if "key" in data and self._keys and self._chance.random() < 0.95:
            data["key"] = self._keys[-1]
        if cls is worker_events.JobWindow and self._chance.random() < 0.95:
            self._go_on(data)

    def _go_on(self, data: dict[str, Any]) -> None:
        """Makes a window follow the one before."""
        checkpoint, segments = data.get("checkpoint"), data.get("segments", [])
        if isinstance(checkpoint, dict) and isinstance(segments, list) and self._keys:
            frame, count = self._places[self._keys[-1]]
            place = frame + 1, count + len(segments)
            checkpoint["frame"], checkpoint["segments"] = self._places[self._keys[-1]] = place

    def run(self) -> int:
        """Returns the number of messages that it has sent."""
        with self._listener:
            self._listener.settimeout(_WAIT_SECONDS)
            for _ in range(_LIVES):
                try:
                    sock, _ = self._listener.accept()
                except TimeoutError:
                    break
                with sock, contextlib.suppress(ConnectionError):
                    self._live(sock)
        return self._sent

    def _live(self, sock: socket.socket) -> None:
        if self._chance.random() < 0.9:
            sock.sendall(frames.encode("hello", HELLO))
        with contextlib.closing(Listener(worker_events.TO_WORKER, audio=True)) as listener:
            select.select([sock], [], [], _WAIT_SECONDS)
            for _ in range(_MESSAGES):
                if not drain(sock, listener, self._receive):
                    break
                with contextlib.closing(self._mutants.message()) as message:
                    message.send(sock, self._chance)
                self._sent += 1
                time.sleep(self._chance.random() * _PAUSE_SECONDS)

    def _receive(self, event: Any) -> None:
        if isinstance(event, worker_events.StartJob):
            self._keys.append(event.key)
            resume = event.resume
            self._places[event.key] = (resume.frame, resume.segments) if resume else (0, 0)
