"""A front that sends almost valid messages to a real worker with the demo model."""

import contextlib
import random
import select
import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from asrd.demo import SAMPLES
from asrd.errors import Code
from asrd.wire.fields import dump
from asrd.wire.options import Options
from asrd.wire.records import AudioFormat
from asrd.wire.worker_events import FROM_WORKER, CancelJob, Failed, StartJob
from tests.fuzz.mutants import Mutants
from tests.fuzz.structured import Listener, drain, name_of
from tests.support.daemons import environment, started_with
from tests.support.raw import PATIENCE, Peer, memfd

_SETTINGS = "[worker]\ncpu_threads = 1\nbeam_size = 1\ncheck_model = true\n"
_MESSAGES = 24
# Between two messages, so that some jobs are answered and others get the next message too early.
_PAUSES_SECONDS = (0, 0.05, 1, 1)
_WORDS = SAMPLES / "en-1.wav"
_TEXT = "one yes"


class WorkerUnderFire:
    # The engine's memory depends on the length of the audio.
    slack_kib = 128 * 1024

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = str(home / "worker.sock")
        self._audio = _WORDS.read_bytes()
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> "WorkerUnderFire":
        self._log = open(self._home / "log", "wb")
        (self._home / "asrd.toml").write_text(_SETTINGS)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(self._path)
            listener.listen()
            self._process = subprocess.Popen(
                [*started_with([listener.fileno()], "worker"), "-m", "asrd.worker.main", "0"],
                env=environment(self._home),
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        return self

    def __exit__(self, *problem: Any) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._log.close()

    @property
    def log(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    def burst(self, chance: random.Random) -> int:
        usual = {"audio": {"encoding": "file"}, "size": 0, "max_audio_seconds": 60.0}

        def touch(cls: type, data: dict[str, Any]) -> None:
            if cls is StartJob and chance.random() < 0.7:
                data |= usual

        mutants = Mutants(
            chance, {StartJob: 3.0, CancelJob: 1.0}, StartJob, False, self._audio, self._home, touch
        )
        messages = 0
        while messages < _MESSAGES:
            with self._connected() as front:
                with contextlib.closing(Listener(FROM_WORKER)) as listener:
                    messages += self._one_front(front.sock, listener, mutants, chance)
        return messages

    def _one_front(
        self, sock: socket.socket, listener: Listener, mutants: Mutants, chance: random.Random
    ) -> int:
        """Sends messages until the worker ends the connection, and returns their number."""
        for sent in range(_MESSAGES):
            with contextlib.closing(mutants.message()) as message:
                with contextlib.suppress(ConnectionError):
                    message.send(sock, chance)
            select.select([sock], [], [], chance.choice(_PAUSES_SECONDS))
            if not drain(sock, listener, self._note):
                return sent + 1
        return _MESSAGES

    def _note(self, event: Any) -> None:
        self.answers[name_of(event)] += 1
        assert not (isinstance(event, Failed) and event.code == Code.INTERNAL), event

    def _connected(self) -> Peer:
        """Connects; the worker first finishes the job of the last front."""
        peer = Peer.connect(self._path)
        event = peer.receive()
        while event is not None and event.type == "loading":
            event = peer.receive()
        if event is None or event.type != "hello":
            peer.close()
            raise AssertionError(f"{event} instead of hello")
        # With the turn word.
        event.close()
        return peer

    def look(self) -> None:
        job = StartJob(
            1 << 40, "honest", AudioFormat("file"), Options(language="en"), len(self._audio)
        )
        with self._connected() as front, memfd(self._audio) as fd:
            front.send(StartJob.TYPE, dump(job), fds=(fd.fileno(),))
            answer = front.receive()
            while answer is not None and answer.type == "alive":
                answer = front.receive()
        assert answer is not None and answer.type == "done", answer
        assert (answer.data["key"], answer.data["text"].strip()) == (1 << 40, _TEXT), answer
