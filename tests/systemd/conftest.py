"""Machines with the real packages, built from this checkout (or those in $ASRD_DEBS)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.systemd.nspawn import Machine, booted
from tests.support.systemd.packages import built, install
from tests.support.systemd.service import Service

# Longer queues, since the tests' clients come all at once; otherwise the settings as shipped.
SETTINGS = "[front]\nqueue_max = 64\n"


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the packages of this checkout."""
    if ready := os.environ.get("ASRD_DEBS"):
        return Path(ready)
    return built(tmp_path_factory.mktemp("debs"))


@pytest.fixture(scope="session")
def machine(debs: Path) -> Iterator[Machine]:
    """One machine with asrd installed, for all tests that leave it as they found it."""
    with booted(debs) as machine:
        install(machine, *debs.glob("*.deb"))
        yield machine


@pytest.fixture(scope="session")
def installed(machine: Machine) -> Service:
    service = Service(machine)
    service.add_users()
    machine.write("/etc/asrd/asrd.toml", SETTINGS)
    service.systemctl("restart", "asrd.service")
    return service


@pytest.fixture
def service(installed: Service) -> Service:
    """asrd at work, its one worker ready."""
    installed.until_worker("ready")
    return installed


@pytest.fixture
def fresh_machine(debs: Path) -> Iterator[Machine]:
    """A machine of the test's own, nothing installed yet."""
    with booted(debs) as machine:
        yield machine
