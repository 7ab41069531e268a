"""The units as text: systemd's own checks of them, and the reason beside what is unusual."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.systemd.nspawn import Machine

pytestmark = pytest.mark.systemd

UNITS = ROOT / "systemd"
# The score runs from 0 (sandboxed in every way systemd knows) to 10. What is left open has its
# reason in the unit.
EXPOSURE = {"asrd.service": 0.5, "asr-worker@.service": 1.0}
# systemd gives up on a unit that starts too often, and its socket with it, until an admin acts.
NEVER_GIVE_UP = {".service": "StartLimitIntervalSec=0", ".socket": "TriggerLimitIntervalSec=0"}


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_sandbox_is_tight(unit: str) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / unit)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    score = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert score is not None, said
    assert float(score[1]) <= EXPOSURE[unit], said


def test_verify_finds_nothing_in_the_installed_units(machine: Machine) -> None:
    units = [path.name.replace("@.", "@0.") for path in UNITS.glob("*.s[elo]*")]
    units += [path.name for path in UNITS.glob("*.target")]
    assert len(units) == 7
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(
    "unit", [*UNITS.glob("*.service"), *UNITS.glob("*.socket")], ids=lambda path: path.name
)
def test_no_unit_gives_up_for_good(unit: Path) -> None:
    assert NEVER_GIVE_UP[unit.suffix] in unit.read_text().splitlines()


@pytest.mark.parametrize("unit", [*UNITS.glob("*.[st]*")], ids=lambda path: path.name)
def test_the_manual_pages_that_a_unit_names_are_there(unit: Path) -> None:
    pages = re.findall(r"man:(\S+)\((\d)\)", unit.read_text())
    assert pages or unit.suffix in (".sysusers", ".tmpfiles")
    for name, section in pages:
        assert (ROOT / "docs" / "man" / f"{name}.{section}").exists()
