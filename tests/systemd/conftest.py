"""Machines with the real packages, built from this checkout (or those in $ASRD_DEBS)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.systemd.nspawn import Machine, booted
from tests.support.systemd.service import Service, built, install

# The settings as shipped, except for a longer queue: the tests' clients come all at once.
SETTINGS = "[front]\nqueue_max = 64\n"


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("debs"))


@pytest.fixture(scope="session")
def machine(debs: Path) -> Iterator[Machine]:
    """A machine with asrd installed, for all tests that leave it unchanged."""
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
    """asrd with its one worker ready."""
    installed.until_worker("ready")
    return installed


@pytest.fixture
def fresh_machine(debs: Path) -> Iterator[Machine]:
    """A machine of the test's own without asrd."""
    with booted(debs) as machine:
        yield machine
