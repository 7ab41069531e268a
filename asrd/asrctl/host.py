"""The machine, as `asrctl doctor` sees it; tests replace it by another one."""

import grp
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from asrd.asrctl.access import Reader
from asrd.client.client import Client
from asrd.config import config_path
from asrd.errors import ConnectionLost
from asrd.snapshot import Snapshot, read_snapshot

_PROPERTIES = "Id,LoadState,ActiveState,Result,NRestarts,StatusText"
_PROPERTIES += ",DevicePolicy,DeviceAllow,PrivateDevices,UnitFileState,FragmentPath,Listen"
_PROPERTIES += ",ExecMainStartTimestampMonotonic"

# Names that systemctl takes for an instance of a unit; with another one it shows no unit at all.
_INSTANCE = re.compile(r"[\w.:@-]+", re.ASCII)

# The properties of a unit.
Unit = dict[str, str]


class Host:
    def __init__(self, socket: str | None = None) -> None:
        self.config = config_path()
        self.socket = Path(Client(socket).socket)

    def units(self, *patterns: str) -> dict[str, Unit]:
        """Returns the properties of loaded units by name; empty if systemd can't be asked. The
        lines of a property that has several are joined."""
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
        units = [_unit(block) for block in blocks if block]
        return {unit["Id"]: unit for unit in units}

    def is_installed(self) -> bool:
        """Returns True if systemd has the daemon's units, so that it is no `asrd run`."""
        units = self.units("asrd.socket", "asrd.service")
        return any(unit["LoadState"] == "loaded" for unit in units.values())

    def worker_names(self) -> list[str]:
        """Returns the workers that systemd knows or that have a settings file; "0" if none."""
        units = self.units("asr-worker@*.socket")
        names = {name.removeprefix("asr-worker@").removesuffix(".socket") for name in units}
        return sorted(names | set(self.worker_files())) or ["0"]

    def worker_files(self) -> list[str]:
        """Returns the names of the workers that have a settings file."""
        files = self.config.parent.glob("worker-*.toml")
        names = (path.stem.removeprefix("worker-") for path in files)
        return sorted(filter(_INSTANCE.fullmatch, names))

    def worker_file(self, name: str) -> Path:
        return self.config.with_name(f"worker-{name}.toml")

    def front_reader(self) -> Reader:
        """Returns the front's user, who reads asrd.toml."""
        try:
            user = pwd.getpwnam("asrd")
        except KeyError:
            return Reader("the front")
        return Reader("the front (user asrd)", user.pw_uid, frozenset({user.pw_gid}))

    def worker_reader(self) -> Reader:
        """Returns the user of every worker, which has only its group for sure."""
        group = _group("asr-worker")
        return Reader(
            "the workers (group asr-worker)",
            gids=frozenset() if group is None else frozenset({group.gr_gid}),
        )

    def is_missing(self, path: Path) -> bool:
        """Returns True if there is no such file, False also if this user can't see that."""
        try:
            path.lstat()
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return False

    def status(self) -> Snapshot:
        """Returns the daemon's status; users without permission get it from the status socket.
        Raises AsrdError."""
        try:
            with Client(str(self.socket)) as client:
                return read_snapshot(client.status(timeout=3))
        except ConnectionLost as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
        with Client(str(self.socket.with_name("status.sock"))) as client:
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

    def free(self, path: Path) -> tuple[int, int | None]:
        """Returns the bytes and the inodes that are free; None where there is no limit of those."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


def _unit(lines: list[str]) -> Unit:
    found: Unit = {}
    for name, _, value in (line.partition("=") for line in lines):
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None
