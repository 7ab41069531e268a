"""The contents of a Debian package, and the same package with an earlier version number."""

import shutil
import subprocess
from pathlib import Path

OLD = "0.0.1"


def field(deb: Path, name: str) -> str:
    argv = ["dpkg-deb", "--field", str(deb), name]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def version_of(deb: Path) -> str:
    return field(deb, "Version")


def contents(deb: Path) -> str:
    argv = ["dpkg-deb", "--contents", str(deb)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def older(debs: Path, directory: Path) -> list[Path]:
    """Makes packages of the version OLD in `directory`."""
    made = []
    for deb in debs.glob("*.deb"):
        tree = directory / deb.stem
        subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
        control = tree / "DEBIAN" / "control"
        control.write_text(control.read_text().replace(version_of(deb), OLD))
        for module in tree.glob("usr/lib/python3/dist-packages/asrd/version.py"):
            module.write_text(f'__version__ = "{OLD}"\n')
        made.append(directory / deb.name)
        argv = ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build"]
        subprocess.run([*argv, str(tree), str(made[-1])], check=True, capture_output=True)
        shutil.rmtree(tree)
    return made
