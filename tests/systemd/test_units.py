"""The unit files: systemd's own checks, and the settings that every unit must have."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.systemd.nspawn import SUITES, Machine

pytestmark = pytest.mark.systemd

UNITS = ROOT / "systemd"
# systemd's score runs from 0 (every sandbox option is used) to 10. The unit gives the reason for
# each option that it does not use.
EXPOSURE = {"asrd.service": 0.5, "asrd-http.service": 0.5, "asr-worker@.service": 1.0}
# By default systemd stops a unit that starts too often, and its socket, until an admin acts.
NEVER_GIVE_UP = {".service": "StartLimitIntervalSec=0", ".socket": "TriggerLimitIntervalSec=0"}


@pytest.mark.parametrize("unit", EXPOSURE)
def test_sandbox_score_is_within_its_bound(unit: str) -> None:
    report = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / unit)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    score = re.search(r"Overall exposure level for .*: ([0-9.]+)", report)
    assert score is not None, report
    assert float(score[1]) <= EXPOSURE[unit], report


@pytest.mark.suites(*SUITES)
def test_systemd_analyze_verify_accepts_installed_units(machine: Machine) -> None:
    units = [path.name.replace("@.", "@0.") for path in UNITS.glob("*.s[elo]*")]
    units += [path.name for path in UNITS.glob("*.target")]
    assert len(units) == 12
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(
    "unit", [*UNITS.glob("*.service"), *UNITS.glob("*.socket")], ids=lambda path: path.name
)
def test_unit_is_restarted_without_limit(unit: Path) -> None:
    assert NEVER_GIVE_UP[unit.suffix] in unit.read_text().splitlines()


@pytest.mark.parametrize("unit", [*UNITS.glob("*.[st]*")], ids=lambda path: path.name)
def test_man_pages_named_by_unit_exist(unit: Path) -> None:
    pages = re.findall(r"man:(\S+)\((\d)\)", unit.read_text())
    assert pages or unit.suffix in (".sysusers", ".tmpfiles")
    for name, section in pages:
        assert (ROOT / "docs" / "man" / f"{name}.{section}").exists()
