"""A machine without asrd's packages, for the section "Elsewhere" of docs/elsewhere.md."""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.systemd.nspawn import Machine, booted, cache_directory

# Debian 13 with what the page asks for.
SUITE, PYTHON = "trixie", "3.13"
PACKAGES = "systemd,systemd-sysv,dbus,python3-venv,libstdc++6"
_MANYLINUX = ("2_28", "2_27", "2_17", "2014")
# No sudo there: root types the lines.
_SUDO = (
    'sudo() { "$@"; }; export PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels; cd /srv/checkout; set -e; '
)


@contextmanager
def machine_elsewhere() -> Iterator[Machine]:
    """A booted machine without a network; it has this checkout, and wheels in a directory."""
    found = wheels()
    with booted(suite=SUITE, packages=PACKAGES) as machine:
        srv = machine.root / "srv"
        (srv / "checkout").mkdir()
        argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True).stdout
        pack = ["tar", "-c", "--exclude=tests", "--ignore-failed-read", "--null", "--files-from=-"]
        packed = subprocess.run(pack, cwd=ROOT, input=names, check=True, capture_output=True)
        unpack = ["tar", "-x", "-C", str(srv / "checkout")]
        subprocess.run(unpack, input=packed.stdout, check=True)
        subprocess.run(["cp", "-r", str(found), str(srv / "wheels")], check=True)
        yield machine


def typed(machine: Machine, lines: str) -> "subprocess.CompletedProcess[str]":
    return machine.run("bash", "-c", _SUDO + lines, timeout=300)


def lines_of_page() -> str:
    """The block of commands of the section "Elsewhere"."""
    page = (ROOT / "docs" / "elsewhere.md").read_text()
    section = page.partition("\n## Elsewhere\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^    (.*)$", section, re.MULTILINE))


def wheels() -> Path:
    """The packages of requirements.lock for that machine's Python, and setuptools, fetched once."""
    lock = (ROOT / "packaging" / "requirements.lock").read_text()
    pinned = [*re.findall(r"^[\w.-]+==[^\s;]+", lock, re.MULTILINE), "setuptools>=77"]
    cache = cache_directory()
    done = cache / f"wheels-{PYTHON}-{hashlib.sha256(repr(pinned).encode()).hexdigest()[:12]}"
    with open(cache / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not done.exists():
            unfinished = done.with_suffix(".new")
            _fetch(pinned, unfinished)
            unfinished.rename(done)
    return done


def _fetch(pinned: list[str], into: Path) -> None:
    pip = [sys.executable, "-m", "pip"]
    # Its author publishes sources only.
    sources = [each for each in pinned if each.startswith("sdnotify")]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(into), *sources], check=True)
    argv = [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "--dest", str(into)]
    argv += [f"--python-version={PYTHON}", "--platform=any"]
    argv += [
        f"--platform=manylinux{tag if tag == '2014' else '_' + tag}_x86_64" for tag in _MANYLINUX
    ]
    others = [each for each in pinned if each not in sources]
    subprocess.run([*argv, *others], check=True, stdout=subprocess.DEVNULL, env=os.environ)
