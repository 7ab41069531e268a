"""The machine, as `asrctl doctor` sees it; tests replace it by another one."""

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from asrd.client.client import Client
from asrd.config import config_path
from asrd.snapshot import Snapshot, read_snapshot

_PROPERTIES = "Id,LoadState,ActiveState,Result,NRestarts,StatusText"
_PROPERTIES += ",DevicePolicy,DeviceAllow,PrivateDevices,UnitFileState"


class Host:
    def __init__(self, socket: str | None = None) -> None:
        self.config = config_path()
        self.socket = Path(Client(socket).socket)

    def units(self, *patterns: str) -> dict[str, dict[str, str]]:
        """Returns the properties of loaded units by name; empty if systemd can't be asked."""
        systemctl = shutil.which("systemctl")
        if systemctl is None or not systemctl.startswith("/"):
            # PATH may name the working directory, where anyone may have put a program.
            return {}
        command = [systemctl, "show", "--all", f"--property={_PROPERTIES}", *patterns]
        try:
            shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return {}
        blocks = [block.splitlines() for block in shown.stdout.strip().split("\n\n")]
        units = [dict(line.split("=", 1) for line in block if line) for block in blocks if block]
        return {unit["Id"]: unit for unit in units}

    def is_installed(self) -> bool:
        """Returns True if systemd has the daemon's units, so that it is no `asrd run`."""
        units = self.units("asrd.socket", "asrd.service")
        return any(unit["LoadState"] == "loaded" for unit in units.values())

    def worker_names(self) -> list[str]:
        """Returns the workers that systemd knows or that have a settings file; "0" if none."""
        units = self.units("asr-worker@*.socket")
        names = {name.removeprefix("asr-worker@").removesuffix(".socket") for name in units}
        files = self.config.parent.glob("worker-*.toml")
        return sorted(names | {path.stem.removeprefix("worker-") for path in files}) or ["0"]

    def status(self) -> Snapshot:
        """Returns the daemon's status. Raises AsrdError."""
        with Client(str(self.socket)) as client:
            return read_snapshot(client.status(timeout=3))

    def user(self) -> str:
        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            # A container may run with a user number that has no name.
            return f"user {os.getuid()}"

    def in_group(self, name: str) -> bool:
        """Returns True if this very process is in the group."""
        group = _group(name)
        return group is not None and group.gr_gid in {os.getegid(), *os.getgroups()}

    def member_of(self, name: str) -> bool:
        """Returns True if the user is in the group from the next login on."""
        group = _group(name)
        return group is not None and self.user() in group.gr_mem

    def gpus(self) -> list[Path]:
        return sorted(Path("/dev").glob("nvidia[0-9]*"))

    def nvidia_driver(self) -> str:
        """Returns the version of the running driver, or "unknown"."""
        try:
            from asrd.engine.cuda import driver_version
        except ImportError:
            return "unknown"
        return driver_version()

    def free_bytes(self, path: Path) -> int:
        return shutil.disk_usage(path).free


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None
