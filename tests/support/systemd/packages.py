"""The Debian packages of this checkout."""

import os
import subprocess
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.systemd.nspawn import Machine


def built(directory: Path) -> Path:
    """`directory`, with the packages in it."""
    subprocess.run(
        [str(ROOT / "packaging" / "build-deb"), str(directory)],
        env=os.environ | {"DEB_BUILD_OPTIONS": "fast"},
        capture_output=True,
        check=True,
    )
    return directory


def install(machine: Machine, *debs: Path) -> str:
    """What apt says to the packages; there is no network in the machine."""
    return machine.run(
        "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet",
        "--no-install-recommends", *map(str, debs), timeout=120,
    ).stdout  # fmt: skip
