"""Machines with the real packages, built from this checkout (or those in $ASRD_DEBS)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .nspawn import Machine, booted

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the packages of this checkout."""
    if ready := os.environ.get("ASRD_DEBS"):
        return Path(ready)
    directory = tmp_path_factory.mktemp("debs")
    subprocess.run(
        [str(TOP / "packaging" / "build-deb"), str(directory)],
        env=os.environ | {"DEB_BUILD_OPTIONS": "fast"},
        capture_output=True,
        check=True,
    )
    return directory


def install(machine: Machine, debs: Path) -> str:
    """What apt says to the packages of the directory; there is no network in the machine."""
    files = sorted(str(path) for path in debs.glob("*.deb"))
    return machine.run(
        "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet",
        "--no-install-recommends", *files, timeout=120,
    ).stdout  # fmt: skip


@pytest.fixture(scope="session")
def machine(debs: Path) -> Iterator[Machine]:
    """One machine with asrd installed, for all tests that leave it as they found it."""
    with booted(debs) as machine:
        install(machine, debs)
        yield machine


@pytest.fixture
def fresh_machine(debs: Path) -> Iterator[Machine]:
    """A machine of the test's own, nothing installed yet."""
    with booted(debs) as machine:
        yield machine
