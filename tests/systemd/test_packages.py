"""The packages of each release: how they are built, and their ways with apt, without a network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.systemd.building import BUILD, PREPARE, Builder
from tests.support.systemd.debs import OLD, contents, field, older, version_of
from tests.support.systemd.nspawn import SUITES, Machine
from tests.support.systemd.service import INSIDER, SAMPLE, TEXT, Service, install
from tests.systemd.conftest import SETTINGS

pytestmark = pytest.mark.package
each_release = pytest.mark.suites(*SUITES)

# Files of the system: accounts, caches, logs, systemd's state.
SYSTEMS_OWN = re.compile(
    r"/(proc|sys|dev|run|tmp|home|root|srv|var/(log|lib/(dpkg|apt|systemd)|cache/(apt|debconf)))(/|$)"
    r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|/etc/\.pwd\.lock$|/var/(cache|lib)/private$"
)


def files(machine: Machine) -> set[str]:
    found = machine.output("find", "/", "-xdev", "-not", "-type", "s").splitlines()
    return {path for path in found if not SYSTEMS_OWN.match(path)}


def apt(machine: Machine, *argv: str) -> str:
    return machine.run("apt-get", "--yes", "--quiet", *argv, timeout=120).stdout


def assert_serves(service: Service, *sockets: str) -> None:
    """A member gets a transcript, and these sockets listen beside those of the front."""
    for socket in ("asrd.socket", "asrd-status.socket", *sockets):
        assert service.machine.show(socket, "ActiveState") == "active", socket
    done = service.machine.run("asrctl", "transcribe", SAMPLE, user=INSIDER)
    assert done.stdout.strip() == TEXT
    assert "the demo model, which knows about 80 words" in done.stderr


def assert_off(service: Service, *sockets: str) -> None:
    for socket in sockets:
        assert service.machine.show(socket, "ActiveState") == "inactive", socket
        assert service.machine.show(socket, "UnitFileState") in ("disabled", "masked"), socket


@pytest.fixture
def older_debs(debs: Path, tmp_path: Path) -> list[Path]:
    return older(debs, tmp_path)


def test_debian_changelog_has_the_version_of_the_code() -> None:
    changelog = (ROOT / "packaging" / "debian" / "changelog").read_text()
    version = (ROOT / "asrd" / "version.py").read_text()
    assert f'"{changelog.split("(")[1].split(")")[0]}"' in version


@pytest.mark.parametrize("python", ["3.12", "3.14"])
def test_lock_is_complete_for_the_pythons_of_ubuntu(python: str, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--require-hashes"]
    pip += ["--no-deps", "--only-binary=:all:", "--no-binary=sdnotify", f"--target={tmp_path}"]
    lock = ROOT / "packaging" / "requirements.lock"
    subprocess.run([*pip, f"--python-version={python}", "-r", str(lock)], check=True)


@each_release
def test_lintian_has_no_hints(debs: Path, clean_machine: Builder | None) -> None:
    # lintian does not know zstd, though dpkg does.
    lintian = "lintian --allow-root --display-info --pedantic --suppress-tags=malformed-deb-archive"
    if clean_machine:
        clean_machine.run("apt-get install lintian")
        hints = clean_machine.run(f"{lintian} dist/*.changes", check=False).stdout
    else:
        argv = ["sh", "-c", f'{lintian} "$1"/*.changes', "sh", str(debs)]
        hints = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert [line for line in hints.splitlines() if not line.startswith("N:")] == []


@pytest.mark.suites("trixie")
def test_clean_machine_builds_by_the_lines_of_the_page(clean_machine: Builder) -> None:
    page = (ROOT / "docs" / "admin.md").read_text()
    assert f"    sudo {PREPARE}\n    {BUILD} " in page
    # Named before anything is fetched or built.
    assert f"sudo apt-get build-dep /{clean_machine.place}" in clean_machine.refusal


@each_release
def test_package_is_for_its_release(suite: str, debs: Path) -> None:
    (deb,) = debs.glob("asrd_*.deb")
    python, following, number, units = {
        "bookworm": ("3.11", "3.12", "12", "./lib"), "trixie": ("3.13", "3.14", "13", "./usr/lib")
    }[suite]  # fmt: skip
    assert version_of(deb).endswith(f"~deb{number}u1")
    depends = field(deb, "Depends").split(", ")
    assert f"python3 (>= {python})" in depends and f"python3 (<< {following})" in depends
    assert f" {units}/systemd/system/asrd.service\n" in contents(deb)


def test_packages_have_the_examples_for_monitoring_and_the_pages(debs: Path) -> None:
    (deb,) = debs.glob("asrd_*.deb")
    listed = contents(deb)
    for example in (ROOT / "packaging" / "monitoring").iterdir():
        assert f" ./usr/share/doc/asrd/examples/monitoring/{example.name}\n" in listed
    (client,) = debs.glob("python3-asrd_*.deb")
    listed += contents(client)
    for page in ("man8/asrd.8.gz", "man8/asr-worker@.8.gz", "man1/asrctl.1.gz"):
        assert f" ./usr/share/man/{page}\n" in listed


@each_release
def test_every_path_from_installation_to_purge(bare: Service, debs: Path) -> None:
    machine, before = bare.machine, files(bare.machine)
    install(machine, *debs.glob("*.deb"))
    assert_serves(bare, "asr-worker@0.socket")
    # Strangers are let in by the admin alone.
    assert_off(bare, "asrd-wyoming.socket", "asrd-http.socket")
    assert machine.run("asrctl", "doctor").returncode == 0

    bare.systemctl("enable", "--now", "asr-worker@1.socket", "asrd-http.socket")
    bare.systemctl("enable", "asrd-wyoming.socket")
    bare.systemctl("disable", "--now", "asr-worker@0.socket")
    bare.systemctl("mask", "asr-worker@2.socket")
    bare.systemctl("restart", "asrd.service")
    machine.write("/etc/asrd/worker-1.toml", "beam_size = 1\n")
    machine.write("/var/lib/asrd/models/mine/model.bin", "weights")
    apt(machine, "remove", "asrd", "python3-asrd")
    assert machine.run("pgrep", "--full", "asr", check=False).stdout == ""
    assert machine.run("ls", "/run/asrd", check=False).returncode != 0
    assert (machine.root / "etc/asrd/worker-1.toml").exists()
    assert (machine.root / "var/lib/asrd/models/mine/model.bin").exists()

    # What was on is on at once, and nothing else.
    install(machine, *debs.glob("*.deb"))
    assert_serves(bare, "asr-worker@1.socket", "asrd-http.socket", "asrd-wyoming.socket")
    assert_off(bare, "asr-worker@0.socket", "asr-worker@2.socket")

    bare.systemctl("unmask", "asr-worker@2.socket")
    apt(machine, "purge", "asrd", "python3-asrd")
    assert files(machine) - before == set()
    assert machine.output("systemctl", "list-units", "--all", "--no-legend", "asr*") == ""
    # As on the first day.
    install(machine, *debs.glob("*.deb"))
    assert_serves(bare, "asr-worker@0.socket")
    assert_off(bare, "asr-worker@1.socket", "asrd-http.socket", "asrd-wyoming.socket")


@each_release
def test_upgrade_and_downgrade_under_load_lose_no_request(
    bare: Service, debs: Path, older_debs: list[Path]
) -> None:
    machine = bare.machine
    for deb in older_debs:
        shutil.copy(deb, machine.root / "srv")
    old_debs = [Path("/srv", deb.name) for deb in older_debs]
    install(machine, *old_debs)
    machine.write("/etc/asrd/asrd.toml", SETTINGS)
    bare.systemctl("restart", "asrd.service")
    bare.until_worker("ready")
    bare.systemctl("mask", "asr-worker@2.socket")
    (new,) = {version_of(deb) for deb in debs.glob("*.deb")}
    for packages, version in (list(debs.glob("*.deb")), new), (old_debs, OLD):
        assert bare.status()["version"] not in version
        process = bare.pid("asr-worker@0.service")
        with bare.load() as load:
            install(machine, *packages)
            bare.until_done(4)
        load.assert_nobody_lost_an_answer(at_least=10)
        print(f"{version}: {load.outcomes}, longest wait {load.longest:.2f} s")
        # The package's version names the release, too.
        assert version.startswith(bare.status()["version"])
        assert bare.pid("asr-worker@0.service") != process
        assert_off(bare, "asr-worker@2.socket")
        assert (machine.root / "etc/asrd/asrd.toml").read_text() == SETTINGS


def test_client_package_has_module_and_asrctl(bare: Service, debs: Path) -> None:
    install(bare.machine, *debs.glob("python3-asrd_*.deb"))
    code = "import asrd, sys; asrd.Client(); sys.exit('anyio' in sys.modules)"
    bare.machine.run("/usr/bin/python3", "-c", code)
    refused = bare.machine.run("asrctl", "status", check=False)
    assert refused.returncode == 3
    assert "the socket /run/asrd/asrd.sock is missing" in refused.stderr
