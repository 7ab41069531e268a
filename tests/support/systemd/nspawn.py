"""A whole machine for a test: Debian under its own systemd, in a container without a network.

The container is not registered with systemd-machined (--register=no works on hosts without
systemd): commands enter it by nsenter(1) through its first process. `booted` always removes all of
its processes, mounts, control groups and files.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.support.procfs import children
from tests.support.raw import wait_for

# The releases whose packages are tested: Debian 12 and 13.
SUITES = ("bookworm", "trixie")
# The dependencies of asrd's packages, whose installation needs no network, and those of the tests.
PACKAGES = "systemd,systemd-sysv,dbus,python3,libstdc++6,procps"
# Units that are of no use in a test's half minute.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "console-getty.service",
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# So long that only a hang fails, even on a busy host.
_BOOT_SECONDS = 90.0


def cache_directory() -> Path:
    cache = Path(os.environ.get("ASRD_TEST_CACHE") or Path.home() / ".cache" / "asrd-tests")
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def root_of(suite: str, packages: str = PACKAGES) -> Path:
    """The root file system as a tar, made once in $ASRD_TEST_CACHE (~/.cache/asrd-tests)."""
    cache = cache_directory()
    recipe = ["mmdebstrap", "--variant=minbase", f"--include={packages}"]
    recipe += [f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}']
    # A machine of a test need not survive a power failure.
    recipe += ['--customize-hook=echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/tests"', suite]
    tar = cache / f"{suite}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}.tar"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tar.exists():
            unfinished = tar.with_suffix(".new.tar")
            subprocess.run([*recipe, str(unfinished)], check=True, capture_output=True, text=True)
            unfinished.rename(tar)
    return tar


class Machine:
    """A running machine. `root` is its / as the host sees it; `inside`, for root alone, is its / as
    its own processes see it, with all mounts."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.inside = Path(f"/proc/{leader}/root")
        target = f"--target={leader}"
        self._enter = ["nsenter", target, "--all", "env", "-i", _PATH, "LC_ALL=C.UTF-8"]

    def command(self, *argv: str, user: str | None = None) -> list[str]:
        return [*self._enter, *(["runuser", "-u", user, "--"] if user else []), *argv]

    def run(
        self, *argv: str, user: str | None = None, check: bool = True, timeout: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            self.command(*argv, user=user),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{argv} gave {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def output(self, *argv: str, user: str | None = None) -> str:
        return self.run(*argv, user=user).stdout.strip()

    def start(self, *argv: str, user: str | None = None) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*argv, user=user), stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.output("systemctl", "show", "--value", f"--property={name}", unit)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@contextlib.contextmanager
def booted(
    *read_only: Path, suite: str = "bookworm", packages: str = PACKAGES
) -> Iterator[Machine]:
    """A fresh machine, booted. `read_only`: host directories, mounted there at the same path."""
    directory = Path(tempfile.mkdtemp(prefix="asrd-machine-"))
    root = directory / "root"
    root.mkdir()
    try:
        tar = root_of(suite, packages)
        subprocess.run(["tar", "-xf", str(tar), "-C", str(root)], check=True)
        with _control_groups(directory.name) as groups, _nspawn(root, groups, read_only) as leader:
            machine = Machine(root, leader)
            wait_for("the machine to be up", partial(_is_up, machine), _BOOT_SECONDS)
            yield machine
    finally:
        shutil.rmtree(directory)


def _is_up(machine: Machine) -> bool:
    state = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
    return state in ("running", "degraded")


@contextlib.contextmanager
def _nspawn(root: Path, groups: list[Path], read_only: tuple[Path, ...]) -> Iterator[int]:
    options = ["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"]
    options += ["--private-network", "--link-journal=no", f"--directory={root}"]
    options += [f"--bind-ro={path}" for path in read_only]
    # The shell moves itself first: systemd-nspawn makes its groups under its own group.
    joined = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
    with open(root.parent / "console", "w") as console:
        nspawn = subprocess.Popen(
            ["sh", "-c", joined + 'exec systemd-nspawn "$@"', "sh", *options],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    try:
        first = partial(_first_process, nspawn.pid)
        leader: int = wait_for("the first process", first, _BOOT_SECONDS)
        try:
            yield leader
        finally:
            # The kernel ends the other processes of a pid namespace with its first one.
            os.kill(leader, 9)
    finally:
        if nspawn.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                nspawn.wait(10)
        if nspawn.poll() is None:
            # Its children would outlive it.
            for pid in children(nspawn.pid):
                os.kill(pid, 9)
            nspawn.kill()
        nspawn.wait()


def _first_process(nspawn: int) -> int:
    """The only child of nspawn, once it is systemd and no longer nspawn's own helper; 0 before."""
    pids = children(nspawn)
    if len(pids) != 1 or Path(f"/proc/{pids[0]}/comm").read_text().strip() != "systemd":
        return 0
    return pids[0]


@contextlib.contextmanager
def _control_groups(name: str) -> Iterator[list[Path]]:
    """A group in each hierarchy that systemd uses, so that machines do not share one."""
    base = Path("/sys/fs/cgroup")
    found = [base, base / "unified", base / "systemd"]
    groups = [path / name for path in found if (path / "cgroup.procs").exists()]
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in groups:
            for directory, _, _ in os.walk(group, topdown=False):
                wait_for("the end of its processes", partial(_removed, Path(directory)), 30.0)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True
