"""A whole machine for a test: Debian 12 under its own systemd, in a container, off the network.

Nothing of it is registered anywhere (--register=no works where the host runs no systemd): commands
run in it by nsenter(1) into its first process. Whatever happens, `booted` leaves no process, no
mount, no control group and no file behind.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# What the packages depend on is in the root already: installing them needs no network.
PACKAGES = "systemd,systemd-sysv,dbus,python3,libstdc++6"
# Nothing of these is of use in a test's half minute.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "console-getty.service",
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Only a hang fails: the machine outside may be busy.
_BOOT_SECONDS = 90.0


def bookworm() -> Path:
    """The root as a tar, made once: in $ASRD_TEST_CACHE, by default ~/.cache/asrd-tests."""
    cache = Path(os.environ.get("ASRD_TEST_CACHE") or Path.home() / ".cache" / "asrd-tests")
    cache.mkdir(parents=True, exist_ok=True)
    recipe = ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}"]
    recipe += [f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}', "bookworm"]
    tar = cache / f"bookworm-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}.tar"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tar.exists():
            unfinished = tar.with_suffix(".new.tar")
            subprocess.run([*recipe, str(unfinished)], check=True, capture_output=True, text=True)
            unfinished.rename(tar)
    return tar


class Machine:
    """A running one. `root` is its / as this side sees it; `inside` as its own processes do, with
    all that is mounted there, for root alone."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.inside = Path(f"/proc/{leader}/root")
        self._enter = [
            "nsenter",
            f"--target={leader}",
            "--all",
            "env",
            "-i",
            _PATH,
            "LC_ALL=C.UTF-8",
        ]

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
        """One property of a unit, as systemctl shows it."""
        return self.output("systemctl", "show", "--value", f"--property={name}", unit)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def until(what: str, probe: Callable[[], T], seconds: float = 20.0) -> T:
    """The first true value of `probe`; AssertionError with its last value if none comes."""
    end = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what} (last: {value!r})")
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def booted(*read_only: Path) -> Iterator[Machine]:
    """A fresh machine, booted. `read_only`: directories of this side, under the same path there."""
    directory = Path(tempfile.mkdtemp(prefix="asrd-machine-"))
    root = directory / "root"
    root.mkdir()
    try:
        subprocess.run(["tar", "-xf", str(bookworm()), "-C", str(root)], check=True)
        with _control_groups(directory.name) as groups, _nspawn(root, groups, read_only) as leader:
            machine = Machine(root, leader)
            until("the machine is up", lambda: _is_up(machine), _BOOT_SECONDS)
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
    # The shell moves itself first: systemd-nspawn makes its groups under the one that it is in.
    joined = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
    with open(root.parent / "console", "w") as console:
        nspawn = subprocess.Popen(
            ["sh", "-c", joined + 'exec systemd-nspawn "$@"', "sh", *options],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    try:
        leader = until("the first process", lambda: _first_process(children), _BOOT_SECONDS)
        try:
            yield leader
        finally:
            # With the first process of a pid namespace the kernel ends all others.
            os.kill(leader, 9)
    finally:
        if nspawn.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                nspawn.wait(10)
        if nspawn.poll() is None:
            # What it has started would outlive it.
            for pid in children.read_text().split():
                os.kill(int(pid), 9)
            nspawn.kill()
        nspawn.wait()


def _first_process(children: Path) -> int:
    """nspawn's only child, once it is systemd and no longer nspawn's own helper; 0 before."""
    pids = children.read_text().split()
    if len(pids) != 1 or Path(f"/proc/{pids[0]}/comm").read_text().strip() != "systemd":
        return 0
    return int(pids[0])


@contextlib.contextmanager
def _control_groups(name: str) -> Iterator[list[Path]]:
    """A group of its own in each hierarchy that systemd uses, so that two machines don't meet."""
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
                until("its processes are gone", partial(_removed, Path(directory)), 30.0)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True
