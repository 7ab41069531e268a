"""asrd as installed on a machine: its packages, its units and its answers."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.raw import wait_for
from tests.support.systemd.nspawn import Machine

SAMPLES = "/usr/lib/python3/dist-packages/asrd/demo/samples"
SAMPLE, TEXT = f"{SAMPLES}/en-0.wav", "yes ten close"
# A member of the group asr, and a user who is none.
INSIDER, OUTSIDER = "ann", "bob"


def built(directory: Path) -> Path:
    """Builds the Debian packages of this checkout in `directory`. Returns the directory of the
    packages, which is $ASRD_DEBS if that is set."""
    if ready := os.environ.get("ASRD_DEBS"):
        return Path(ready)
    subprocess.run(
        [str(ROOT / "packaging" / "build-deb"), str(directory)],
        env=os.environ | {"DEB_BUILD_OPTIONS": "fast"},
        capture_output=True,
        check=True,
    )
    return directory


def install(machine: Machine, *debs: Path) -> str:
    """Installs the packages with apt, and returns its output; the machine has no network."""
    return machine.run(
        "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet",
        "--no-install-recommends", "--allow-downgrades", *map(str, debs), timeout=120,
    ).stdout  # fmt: skip


@dataclass
class Load:
    """The outcomes of the requests of `Service.load`; filled at the end of the block."""

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
        """One worker in the daemon's status; empty if the daemon does not know it."""
        found = [worker for worker in self.status()["workers"] if worker["name"] == name]
        return found[0] if found else {}

    def until_worker(self, state: str, name: str = "0", patience: float = 20.0) -> None:
        def reached() -> bool:
            return bool(self.worker(name).get("state") == state)

        wait_for(f"worker {name} to be {state}", reached, patience)

    def until_done(self, count: int) -> None:
        """Waits until `count` more jobs are done."""
        target = self.status()["jobs"]["done"] + count
        wait_for(f"{count} more jobs", lambda: self.status()["jobs"]["done"] >= target)

    def pid(self, unit: str) -> int:
        return int(self.machine.show(unit, "MainPID"))

    def until_new_pid(self, unit: str, old: int) -> None:
        wait_for(f"a new process of {unit}", lambda: self.pid(unit) not in (0, old))

    @contextlib.contextmanager
    def settings(self, name: str, text: str) -> Iterator[None]:
        """Adds a settings file to /etc/asrd and restarts the workers; reverts both at the end."""
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
        """Enables worker 1 in addition to worker 0."""
        self.systemctl("enable", "--now", "asr-worker@1.socket")
        try:
            yield
        finally:
            self.systemctl("disable", "--now", "asr-worker@1.socket")

    @contextlib.contextmanager
    def drop_in(self, unit: str, text: str) -> Iterator[None]:
        path = f"/run/systemd/system/{unit}.d/test.conf"
        # The host does not see the machine's /run, which is a file system of its own.
        script = 'mkdir -p "${1%/*}" && printf %s "$2" >"$1" && systemctl daemon-reload'
        self.machine.run("sh", "-ec", script, "sh", path, text)
        try:
            yield
        finally:
            self.machine.run("sh", "-ec", 'rm "$1" && systemctl daemon-reload', "sh", path)

    @contextlib.contextmanager
    def load(self, clients: int = 4) -> Iterator[Load]:
        """Runs clients in a loop during the block; some requests are answered before it begins and
        after it ends."""
        self.machine.write("/srv/loadgen.py", Path(__file__).with_name("loadgen.py").read_text())
        argv = ["/usr/bin/python3", "/srv/loadgen.py", SAMPLE, str(clients)]
        process = self.machine.start(*argv, user=INSIDER)
        load = Load()
        try:
            self.until_done(2)
            yield load
            output, errors = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, errors
        vars(load).update(json.loads(output))
