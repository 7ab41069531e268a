"""asrd as installed on a machine: what the tests do to it and ask of it."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.systemd.nspawn import Machine, until

SAMPLES = "/usr/lib/python3/dist-packages/asrd/demo/samples"
SAMPLE, TEXT = f"{SAMPLES}/en-0.wav", "yes ten close"
# In the group asr, and not.
INSIDER, OUTSIDER = "ann", "bob"


@dataclass
class Load:
    """What came of the requests of `Service.load`; filled when the block ends."""

    outcomes: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    retried: int = 0
    longest: float = 0.0

    def assert_nobody_lost_an_answer(self, at_least: int = 1) -> None:
        assert set(self.outcomes) == {"transcript"}, self.outcomes
        assert self.outcomes["transcript"] >= at_least
        assert self.texts == [TEXT]


class Service:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def add_users(self) -> None:
        self.machine.run("useradd", "--create-home", "--groups", "asr", INSIDER)
        self.machine.run("useradd", "--create-home", OUTSIDER)

    def systemctl(self, *argv: str) -> None:
        self.machine.run("systemctl", *argv)

    def transcribe(self, user: str = INSIDER) -> str:
        return self.machine.output("asrctl", "transcribe", SAMPLE, user=user)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.machine.output("asrctl", "status", "--json"))
        return status

    def worker(self, name: str = "0") -> dict[str, Any]:
        """The daemon's word on one worker; empty if it knows none of the name."""
        found = [worker for worker in self.status()["workers"] if worker["name"] == name]
        return found[0] if found else {}

    def until_worker(self, state: str, name: str = "0", seconds: float = 20.0) -> None:
        until(f"worker {name} is {state}", lambda: self._is(name, state), seconds)

    def _is(self, name: str, state: str) -> bool:
        return bool(self.worker(name).get("state") == state)

    def until_done(self, count: int) -> None:
        """`count` more jobs have been answered."""
        target = self.status()["jobs"]["done"] + count
        until(f"{count} more are done", lambda: self.status()["jobs"]["done"] >= target)

    def pid(self, unit: str) -> int:
        return int(self.machine.show(unit, "MainPID"))

    def until_new_pid(self, unit: str, old: int, seconds: float = 20.0) -> int:
        return until(f"{unit} is a new process", lambda: self._new_pid(unit, old), seconds)

    def _new_pid(self, unit: str, old: int) -> int:
        pid = self.pid(unit)
        return pid if pid != old else 0

    @contextlib.contextmanager
    def settings(self, name: str, text: str) -> Iterator[None]:
        """A settings file in /etc/asrd for as long as the block, and workers that have read it."""
        path = f"/etc/asrd/{name}"
        self.machine.write(path, text)
        self.systemctl("restart", "asr-workers.target")
        try:
            yield
        finally:
            (self.machine.root / path.lstrip("/")).unlink()
            self.systemctl("restart", "asr-workers.target")

    @contextlib.contextmanager
    def second_worker(self) -> Iterator[None]:
        """Worker 1, beside worker 0, for as long as the block."""
        self.systemctl("enable", "--now", "asr-worker@1.socket")
        try:
            yield
        finally:
            self.systemctl("disable", "--now", "asr-worker@1.socket")

    @contextlib.contextmanager
    def drop_in(self, unit: str, text: str) -> Iterator[None]:
        path = f"/run/systemd/system/{unit}.d/test.conf"
        # /run is another file system inside: this side does not see it.
        script = 'mkdir -p "${1%/*}" && printf %s "$2" >"$1" && systemctl daemon-reload'
        self.machine.run("sh", "-ec", script, "sh", path, text)
        try:
            yield
        finally:
            self.machine.run("sh", "-ec", 'rm "$1" && systemctl daemon-reload', "sh", path)

    @contextlib.contextmanager
    def load(self, clients: int = 4) -> Iterator[Load]:
        """Clients in a loop for as long as the block; some requests are answered before it begins
        and after its end."""
        self.machine.write("/srv/loadgen.py", Path(__file__).with_name("loadgen.py").read_text())
        argv = ["/usr/bin/python3", "/srv/loadgen.py", SAMPLE, str(clients)]
        process = self.machine.start(*argv, user=INSIDER)
        load = Load()
        try:
            self.until_done(2)
            yield load
            said, errors = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, errors
        vars(load).update(json.loads(said))
