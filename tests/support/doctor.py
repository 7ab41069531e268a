"""A machine for the doctor that a test has made sound or ill."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asrd.asrctl import doctor
from asrd.asrctl.access import Reader
from asrd.asrctl.finding import Finding, Verdict
from asrd.asrctl.host import Host, Unit
from asrd.errors import ConnectionLost
from asrd.snapshot import Snapshot, read_snapshot

SOUND = {
    "LoadState": "loaded", "ActiveState": "active", "Result": "success", "NRestarts": "0",
    "StatusText": "", "DevicePolicy": "closed", "DeviceAllow": "char-nvidia* rw",
    "PrivateDevices": "no", "UnitFileState": "enabled", "FragmentPath": "", "Listen": "",
    "ExecMainStartTimestampMonotonic": "0",
}  # fmt: skip
NAMES = ["asrd.socket", "asrd-status.socket", "asr-worker@0.socket"]
NAMES += ["asrd.service", "asr-worker@0.service"]
WORKER = {"name": "0", "state": "ready", "model": "large-v3", "device": "cpu"}


class FakeHost(Host):
    """A sound machine, except for the changes of a test."""

    def __init__(self, tmp_path: Path) -> None:
        self.config = tmp_path / "asrd.toml"
        self.socket = tmp_path / "asrd.sock"
        self.socket.touch()
        # pytest makes it for its user alone.
        tmp_path.chmod(0o755)
        self.known = {name: dict(SOUND) for name in NAMES}
        self.workers: list[dict[str, Any]] | None = [dict(WORKER)]
        self.problems: list[str] = []
        self.groups: set[str] = set()
        self.nodes: list[Path] = []
        self.driver = "570.86.10"
        self.room: tuple[int, int | None] = (1 << 40, 1 << 20)
        # The tests' directories are closed to others, from the top.
        self.worker = Reader("the workers", os.getuid())

    def units(self, *patterns: str) -> dict[str, Unit]:
        return {
            name: unit
            for name, unit in self.known.items()
            if any(Path(name).match(pattern) for pattern in patterns)
        }

    def status(self) -> Snapshot:
        if self.workers is None:
            raise ConnectionLost("there is no daemon")
        data = {"state": "ok", "pid": 4711, "workers": self.workers, "problems": self.problems}
        return read_snapshot(data)

    def user(self) -> str:
        return "ann"

    def in_group(self, name: str) -> bool:
        return False

    def member_of(self, name: str) -> bool:
        return name in self.groups

    def gpus(self) -> list[Path]:
        return self.nodes

    def nvidia_driver(self) -> str:
        return self.driver

    def free(self, path: Path) -> tuple[int, int | None]:
        return self.room

    def front_reader(self) -> Reader:
        return Reader("the front", self.worker.uid)

    def worker_reader(self) -> Reader:
        return self.worker

    def set_worker(self, **settings: str) -> None:
        lines = [f"{key} = '{value}'\n" for key, value in settings.items()]
        self.config.write_text("[worker]\n" + "".join(lines))

    def without_units(self, systemd: bool) -> None:
        absent = SOUND | {"LoadState": "not-found", "ActiveState": "inactive"}
        self.known = {name: dict(absent) for name in NAMES[:2]} if systemd else {}


def shown(findings: Iterable[Finding]) -> list[tuple[str, str | None]]:
    """Returns what is wrong, with the commands that show more."""
    return [(found.text, found.see) for found in findings if found.verdict is Verdict.WRONG]


def wrongs(findings: Iterable[Finding]) -> list[tuple[str, str | None]]:
    return [(found.text, found.fix) for found in findings if found.verdict is Verdict.WRONG]


def diagnosed(host: Host) -> list[Finding]:
    return [found for _, found in doctor.examine(host)]
