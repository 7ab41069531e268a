"""Workers that say mutated things to a running front, while an honest one works beside them."""

import contextlib
import random
import select
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from asrd.errors import Code
from asrd.wire import frames
from asrd.wire.client_events import TO_CLIENT
from asrd.wire.fields import dump
from asrd.wire.worker_events import (
    TO_WORKER,
    Bye,
    CannotLoad,
    Done,
    Failed,
    Hello,
    JobProgress,
    JobSegment,
    Loading,
    StartJob,
)
from tests.fuzz.honest import heard, honest_worker
from tests.fuzz.mutants import Mutants
from tests.fuzz.structured import ANSWER_SECONDS, Listener, drain, told_of
from tests.support.daemons import Front
from tests.support.raw import HELLO, Peer, wait_for

_SETTINGS = "queue_max = 64\nmax_wait_seconds = 10\nmax_run_seconds = 5\nmax_attempts = 3\n"
_PCM = {"encoding": "pcm_s16le"}
_LIARS = 12
# Of one liar: how often it is met, and how much it says then, at most.
_LIVES = 8
_MESSAGES = 24
_JOBS = 40
_PAUSE_SECONDS = 0.01
# The honest one takes its time, so that the others get jobs, too; they wait so long for one.
_WORK_SECONDS = 0.05
_WAIT_SECONDS = 0.3
# After one of these a worker is not met again for a while, and after `done` it has no job.
_WEIGHTS = {
    Loading: 0.2,
    Hello: 0.2,
    CannotLoad: 0.02,
    Bye: 0.05,
    JobSegment: 5.0,
    JobProgress: 5.0,
    Done: 1.0,
    Failed: 0.5,
}
# What a worker says of a segment is passed on as it is; the client's library checks it.
_PASSED_ON = frozenset({"segment", "segments"})


class LinkUnderFire:
    slack_kib = 24 * 1024

    def __init__(self, home: Path) -> None:
        self._home = home
        self._stack = contextlib.ExitStack()
        self.answers: Counter[str] = Counter()
        self._bursts = 0

    def __enter__(self) -> "LinkUnderFire":
        with contextlib.ExitStack() as stack:
            self._front = Front(self._home, "honest", config=_SETTINGS)
            stack.enter_context(self._front)
            stack.enter_context(honest_worker(self._front.listeners["honest"], _WORK_SECONDS))
            self._front.wait_for_state("ready", name="honest")
            self._stack = stack.pop_all()
        self.pid = self._front.process.pid
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.close()

    @property
    def log(self) -> str:
        return self._front.log

    def burst(self, chance: random.Random) -> int:
        """New workers each time: the front waits longer and longer for one that lies."""
        self._bursts += 1
        names = [f"liar-{self._bursts}-{n}" for n in range(_LIARS)]
        liars = [
            _Liar(self._front.listen(name), random.Random(chance.random()), self._home)
            for name in names
        ]
        wait_for("the liars to be found", lambda: {*names} <= self._states().keys())
        with ThreadPoolExecutor(_LIARS) as threads, self._front.connect() as client:
            lives = [threads.submit(liar.run) for liar in liars]
            self._be_served(client, chance)
            said = sum(life.result() for life in lives)
        for name in names:
            (self._front.worker_dir / f"{name}.sock").unlink()
        return said

    def _be_served(self, client: Peer, chance: random.Random) -> None:
        """Each job gets one answer, and from the honest worker the right one."""
        audios = {f"job-{n}": chance.randbytes(2 * chance.randint(1, 2000)) for n in range(_JOBS)}
        listener = Listener(TO_CLIENT, _PASSED_ON)
        answered: dict[str, Any] = {}

        def tell(event: Any) -> None:
            self.answers[told_of(event)] += 1
            data = event.data if isinstance(event, frames.Frame) else dump(event)
            if told_of(event) in ("transcript", *Code):
                assert data["job_id"] not in answered, f"answered twice: {data}"
                answered[data["job_id"]] = data

        for job_id, audio in audios.items():
            client.send("transcribe", {"job_id": job_id, "audio": _PCM, "stream": True}, audio)
            time.sleep(chance.random() * _PAUSE_SECONDS)
        with contextlib.closing(listener):
            wait_for(
                "every job's answer",
                lambda: drain(client.sock, listener, tell) and len(answered) == len(audios),
            )
        for job_id, data in answered.items():
            if data.get("worker") == "honest":
                assert data["text"] == heard(audios[job_id]), data

    def look(self) -> None:
        wait_for("the liars to be forgotten", self._alone, ANSWER_SECONDS)
        with self._front.connect() as client:
            client.send("transcribe", {"job_id": "a", "audio": _PCM}, b"honest")
            assert client.answer("a").data.get("text") == heard(b"honest")

    def _alone(self) -> bool:
        return self._states() == {"honest": "ready"} and self._front.status()["connections"] == 1

    def _states(self) -> dict[str, str]:
        told = self._front.status()
        assert told["pid"] == self.pid
        return {worker["name"]: worker["state"] for worker in told["workers"]}


class _Liar:
    """Owns the listener."""

    def __init__(self, listener: socket.socket, chance: random.Random, home: Path) -> None:
        self._listener = listener
        self._chance = chance
        self._keys: list[int] = []
        self._mutants = Mutants(chance, dict(_WEIGHTS), None, False, b"audio", home, self._touch)
        self._said = 0

    def _touch(self, cls: type, data: dict[str, Any]) -> None:
        if "key" in data and self._keys and self._chance.random() < 0.95:
            data["key"] = self._keys[-1]

    def run(self) -> int:
        """Returns how much it has said."""
        with self._listener:
            self._listener.settimeout(_WAIT_SECONDS)
            for _ in range(_LIVES):
                try:
                    sock, _ = self._listener.accept()
                except TimeoutError:
                    break
                with sock, contextlib.suppress(ConnectionError):
                    self._live(sock)
        return self._said

    def _live(self, sock: socket.socket) -> None:
        if self._chance.random() < 0.9:
            sock.sendall(frames.encode("hello", HELLO))
        with contextlib.closing(Listener(TO_WORKER, audio=True)) as listener:
            select.select([sock], [], [], _WAIT_SECONDS)
            for _ in range(_MESSAGES):
                if not drain(sock, listener, self._hear):
                    break
                with contextlib.closing(self._mutants.message()) as message:
                    message.send(sock, self._chance)
                self._said += 1
                time.sleep(self._chance.random() * _PAUSE_SECONDS)

    def _hear(self, event: Any) -> None:
        if isinstance(event, StartJob):
            self._keys.append(event.key)
