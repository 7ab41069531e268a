"""Workers of units divide the cores: the sandbox must let each of them count the others."""

import pytest

from asrd import cores
from tests.support.raw import wait_for
from tests.support.systemd.nspawn import SUITES
from tests.support.systemd.service import Service

pytestmark = pytest.mark.systemd

ALL = cores.usable()


def restart(service: Service) -> None:
    service.systemctl("restart", "asr-workers.target")


def expect(service: Service, cores_of: dict[str, int], workers: int) -> None:
    """Waits until these workers have these cores, and each its share of them."""
    expected = {name: (count, cores.divided(count, workers)) for name, count in cores_of.items()}

    def found() -> bool:
        rows = {row["name"]: row for row in service.status()["workers"]}
        return expected == {
            name: (row["cores"], row["cpu_threads"]) for name, row in rows.items() if row["cores"]
        }

    wait_for(f"{workers} workers with their share of {cores_of}", found, 20)


@pytest.mark.suites(*SUITES)
def test_second_worker_takes_half_after_a_restart(service: Service) -> None:
    restart(service)
    expect(service, {"0": ALL}, 1)
    with service.second_worker():
        restart(service)
        expect(service, {"0": ALL, "1": ALL}, 2)
    restart(service)
    wait_for("worker 1 to be gone", lambda: not service.worker("1"))
    expect(service, {"0": ALL}, 1)


def test_a_units_affinity_limits_its_cores(service: Service) -> None:
    with service.drop_in("asr-worker@0.service", "[Service]\nCPUAffinity=0\n"):
        restart(service)
        expect(service, {"0": 1}, 1)
    restart(service)
    expect(service, {"0": ALL}, 1)
