"""What `asrctl doctor` sees of the machine it runs on; its tests put another one in its place."""

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from asrd.client.client import Client
from asrd.config import config_path

_PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,Result,NRestarts,StatusText"
_PROPERTIES += ",DevicePolicy,DeviceAllow,PrivateDevices"


class Host:
    def __init__(self, socket: str | None = None) -> None:
        self.config = config_path()
        self.socket = Path(Client(socket).socket)

    def units(self, *patterns: str) -> dict[str, dict[str, str]] | None:
        """The properties of loaded units by name; None where no systemd can be asked."""
        systemctl = shutil.which("systemctl")
        if systemctl is None or not systemctl.startswith("/"):
            # PATH may name the working directory, where anybody's program may lie.
            return None
        try:
            told = subprocess.run(
                [systemctl, "show", "--all", f"--property={_PROPERTIES}", *patterns],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return None
        blocks = [block for block in told.split("\n\n") if block.strip()]
        shown = [
            dict(line.split("=", 1) for line in block.strip().splitlines()) for block in blocks
        ]
        return {unit["Id"]: unit for unit in shown}

    def status(self) -> dict[str, Any]:
        """The daemon's own word. Raises AsrdError."""
        with Client(str(self.socket)) as client:
            return client.status(timeout=3)

    def user(self) -> str:
        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            # As in a container that was started with any number.
            return f"user {os.getuid()}"

    def in_group(self, name: str) -> bool:
        """Whether this very process is in the group."""
        group = _group(name)
        return group is not None and group.gr_gid in {os.getegid(), *os.getgroups()}

    def member_of(self, name: str) -> bool:
        """Whether the user is in the group from the next login on."""
        group = _group(name)
        return group is not None and self.user() in group.gr_mem

    def gpus(self) -> list[Path]:
        return sorted(Path("/dev").glob("nvidia[0-9]*"))

    def free_bytes(self, path: Path) -> int:
        return shutil.disk_usage(path).free


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None
