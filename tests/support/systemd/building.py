"""A clean machine of any release of Debian, with a network, on which the packages are built by the
lines of docs/admin.md."""

import contextlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.systemd.nspawn import root_of

# The lines of docs/admin.md: as root, then as an ordinary user.
PREPARE, BUILD = "apt-get build-dep ./packaging", "packaging/build-deb"
USER = "builder"
# Where the packages come from; also what a tarball must have, and .git is not in it.
_SOURCES = ["README.md", "asrd", "docs", "packaging", "systemd"]
_PLACE = "srv/asrd"
# The dialogues of apt that a person answers, and no more packages than it takes.
_APT = 'APT::Get::Assume-Yes "true"; APT::Install-Recommends "false"; quiet "1";'


def here() -> str:
    """The release that the tests run on."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


class Builder:
    """A machine that is not booted: `run` starts one command in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.place = _PLACE
        self.debs = root / _PLACE / "dist"
        # What build-deb said on the machine as it was.
        self.refusal = ""

    def build(self) -> None:
        self.refusal = self.run(BUILD, USER, check=False).stderr
        self.run(PREPARE)
        self.run(BUILD, USER)

    def run(
        self, command: str, user: str = "root", check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a shell's command in the copy of the checkout."""
        argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe"]
        argv += [f"--directory={self._root}", f"--chdir=/{_PLACE}", f"--user={user}"]
        argv += ["--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=DEB_BUILD_OPTIONS=fast"]
        # A company's package index may have a certificate that only this machine knows.
        argv += ["--bind-ro=/etc/ssl/certs:/mnt", "--setenv=PIP_CERT=/mnt/ca-certificates.crt"]
        done = subprocess.run(
            [*argv, "sh", "-ec", command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"{command} gave {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


@contextlib.contextmanager
def builder(suite: str) -> Iterator[Builder]:
    directory = Path(tempfile.mkdtemp(prefix="asrd-builder-"))
    try:
        subprocess.run(["tar", "-xf", str(root_of(suite)), "-C", str(directory)], check=True)
        (directory / _PLACE).mkdir()
        argv = ["tar", "-c", "--exclude=__pycache__", "-C", str(ROOT), *_SOURCES]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as tar:
            unpack = ["tar", "-x", "-C", str(directory / _PLACE)]
            subprocess.run(unpack, stdin=tar.stdout, check=True)
        (directory / "etc/apt/apt.conf.d/tests").write_text(_APT)
        machine = Builder(directory)
        machine.run(f"useradd --create-home {USER} && chown -R {USER} . && apt-get update")
        yield machine
    finally:
        shutil.rmtree(directory)
