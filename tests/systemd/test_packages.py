"""Installation, upgrade, removal and purge of the packages with apt, without a network."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.raw import wait_for
from tests.support.systemd.nspawn import Machine
from tests.support.systemd.service import INSIDER, SAMPLE, TEXT, Service, install
from tests.systemd.conftest import SETTINGS

pytestmark = pytest.mark.package

OLD = "0.0.1"
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


@pytest.fixture
def older_debs(debs: Path, tmp_path: Path) -> Path:
    """The same packages with an earlier version number."""
    for deb in debs.glob("*.deb"):
        tree = tmp_path / deb.stem
        subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
        version = subprocess.run(
            ["dpkg-deb", "--field", str(deb), "Version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        control = tree / "DEBIAN" / "control"
        control.write_text(control.read_text().replace(version, OLD))
        for module in tree.glob("usr/lib/python3/dist-packages/asrd/version.py"):
            module.write_text(module.read_text().replace(version, OLD))
        argv = ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build"]
        subprocess.run([*argv, str(tree), str(tmp_path)], check=True, capture_output=True)
        shutil.rmtree(tree)
    return tmp_path


def test_debian_changelog_has_the_version_of_the_code() -> None:
    changelog = (ROOT / "packaging" / "debian" / "changelog").read_text()
    version = (ROOT / "asrd" / "version.py").read_text()
    assert f'"{changelog.split("(")[1].split(")")[0]}"' in version


def test_lintian_has_no_hints(debs: Path) -> None:
    # bookworm's lintian does not know zstd, though its dpkg does.
    argv = ["lintian", "--allow-root", "--display-info", "--pedantic", "--fail-on=warning"]
    argv += ["--suppress-tags=malformed-deb-archive", *map(str, debs.glob("*.deb"))]
    lintian = subprocess.run(argv, capture_output=True, text=True, check=False)
    hints = [line for line in lintian.stdout.splitlines() if not line.startswith("N:")]
    assert (lintian.returncode, hints) == (0, []), lintian.stderr


def test_package_has_the_examples_for_monitoring(debs: Path) -> None:
    (deb,) = debs.glob("asrd_*.deb")
    argv = ["dpkg-deb", "--contents", str(deb)]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for example in (ROOT / "packaging" / "monitoring").iterdir():
        assert f" ./usr/share/doc/asrd/examples/monitoring/{example.name}\n" in listed


def test_member_gets_transcript_after_installation(fresh_machine: Machine, debs: Path) -> None:
    install(fresh_machine, *debs.glob("*.deb"))
    service = Service(fresh_machine)
    service.add_users()
    for socket in ("asrd.socket", "asrd-status.socket", "asr-worker@0.socket"):
        assert fresh_machine.show(socket, "ActiveState") == "active"
    # Strangers are let in by the admin alone.
    assert fresh_machine.show("asrd-wyoming.socket", "ActiveState") == "inactive"
    assert fresh_machine.show("asrd-wyoming.socket", "UnitFileState") == "disabled"
    done = fresh_machine.run("asrctl", "transcribe", SAMPLE, user=INSIDER)
    assert done.stdout.strip() == TEXT
    assert "the demo model, which knows about 80 words" in done.stderr
    assert fresh_machine.run("asrctl", "doctor").returncode == 0
    for page in ("man8/asrd.8.gz", "man8/asr-worker@.8.gz", "man1/asrctl.1.gz"):
        assert (fresh_machine.root / "usr/share/man" / page).exists()


def test_client_package_has_module_and_asrctl(fresh_machine: Machine, debs: Path) -> None:
    install(fresh_machine, *debs.glob("python3-asrd_*.deb"))
    code = "import asrd, sys; asrd.Client(); sys.exit('anyio' in sys.modules)"
    fresh_machine.run("/usr/bin/python3", "-c", code)
    refused = fresh_machine.run("asrctl", "status", check=False)
    assert refused.returncode == 3
    assert "the socket /run/asrd/asrd.sock is missing" in refused.stderr


def test_upgrade_under_load_loses_no_request_and_keeps_settings(
    fresh_machine: Machine, debs: Path, older_debs: Path
) -> None:
    machine, service = fresh_machine, Service(fresh_machine)
    for deb in older_debs.glob("*.deb"):
        shutil.move(deb, machine.root / "srv" / deb.name)
    install(machine, *(Path("/srv", path.name) for path in (machine.root / "srv").glob("*.deb")))
    service.add_users()
    machine.write("/etc/asrd/asrd.toml", SETTINGS)
    service.systemctl("restart", "asrd.service")
    service.until_worker("ready")
    assert service.status()["version"] == OLD
    old = service.pid("asr-worker@0.service")
    with service.load() as load:
        install(machine, *debs.glob("*.deb"))
        service.until_done(4)
    load.assert_nobody_lost_an_answer(at_least=10)
    print(f"upgrade: {load.outcomes}, longest wait {load.longest:.2f} s, {load.retried} retried")
    assert service.status()["version"] != OLD
    assert service.pid("asr-worker@0.service") != old
    assert (machine.root / "etc/asrd/asrd.toml").read_text() == SETTINGS


def test_remove_keeps_settings_and_models_and_purge_leaves_nothing(
    fresh_machine: Machine, debs: Path
) -> None:
    machine, service = fresh_machine, Service(fresh_machine)
    machine.run("groupadd", "--system", "asr")
    service.add_users()
    before = files(machine)
    install(machine, *debs.glob("*.deb"))
    assert machine.output("asrctl", "transcribe", SAMPLE, user=INSIDER) == TEXT
    service.systemctl("enable", "--now", "asr-worker@1.socket")
    service.systemctl("enable", "asrd-wyoming.socket")
    service.systemctl("restart", "asrd.service")
    wait_for("the start of worker 1", lambda: service.worker("1").get("pid"))
    machine.write("/etc/asrd/worker-1.toml", "beam_size = 1\n")
    machine.write("/var/lib/asrd/models/mine/model.bin", "weights")
    apt(machine, "remove", "asrd", "python3-asrd")
    assert (machine.root / "etc/asrd/asrd.toml").exists()
    assert (machine.root / "var/lib/asrd/models/mine/model.bin").exists()
    assert machine.run("pgrep", "--full", "asr", check=False).stdout == ""
    assert machine.run("ls", "/run/asrd", check=False).returncode != 0
    apt(machine, "purge", "asrd", "python3-asrd")
    assert files(machine) - before == set()
    assert machine.output("systemctl", "list-units", "--all", "--no-legend", "asr*") == ""
