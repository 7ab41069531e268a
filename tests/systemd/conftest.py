"""Machines with the real packages, built from this checkout (or those in $ASRD_DEBS).

A test runs on Debian 12; with the mark `suites`, on the releases that the mark nearest to it names.
pytest sorts the tests by release, so that each has its machines once.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.systemd.building import Builder, builder, here
from tests.support.systemd.nspawn import Machine, booted
from tests.support.systemd.service import Service, built, install

# The settings as shipped, except for a longer queue: the tests' clients come all at once.
SETTINGS = "[front]\nqueue_max = 64\n"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "suite" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("suites")
        suites = mark.args if mark else ("bookworm",)
        metafunc.parametrize("suite", suites, indirect=True, scope="session")


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def clean_machine(suite: str) -> Iterator[Builder | None]:
    """A machine that has built the packages, for a release that is not this machine's."""
    if suite == here():
        yield None
        return
    with builder(suite) as machine:
        machine.build()
        yield machine


@pytest.fixture(scope="session")
def debs(clean_machine: Builder | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_machine.debs if clean_machine else built(tmp_path_factory.mktemp("debs"))


@pytest.fixture(scope="session")
def machine(suite: str, debs: Path) -> Iterator[Machine]:
    """A machine with asrd installed, for all tests that leave it unchanged."""
    with booted(debs, suite=suite) as machine:
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


@pytest.fixture(scope="session")
def changing_machine(suite: str, debs: Path) -> Iterator[Service]:
    with booted(debs, suite=suite) as machine:
        service = Service(machine)
        machine.run("groupadd", "--system", "asr")
        service.add_users()
        yield service


@pytest.fixture
def bare(changing_machine: Service) -> Service:
    """A machine without asrd: as new, or after a purge, which leaves what the admin masked."""
    changing_machine.machine.run("dpkg", "--purge", "asrd", "python3-asrd")
    changing_machine.systemctl("unmask", "asr-worker@2.socket")
    return changing_machine
