"""Processes that die or hang, by a real signal, under a real systemd."""

from pathlib import Path

import pytest

from .nspawn import until
from .service import TEXT, Service

pytestmark = pytest.mark.systemd

WORKER, FRONT = "asr-worker@0.service", "asrd.service"
# The units as shipped wait longer than a test should.
QUICK_WATCHDOG = "[Service]\nWatchdogSec=2s\n"


@pytest.mark.parametrize("signal", ["SEGV", "KILL"])
def test_a_worker_killed_under_load_costs_nobody_an_answer(service: Service, signal: str) -> None:
    with service.load() as load:
        for _ in range(3):
            # A job that has been killed once must get its second chance in peace.
            service.until_done(2)
            service.systemctl("kill", f"--signal={signal}", WORKER)
    load.assert_nobody_lost_an_answer()
    assert load.retried >= 1


def test_a_stopped_worker_is_replaced_by_the_watchdog_and_its_job_answered(
    service: Service,
) -> None:
    with service.drop_in(WORKER, QUICK_WATCHDOG):
        service.systemctl("restart", WORKER)
        service.until_worker("ready")
        old = service.pid(WORKER)
        with service.load() as load:
            service.systemctl("kill", "--signal=STOP", WORKER)
            service.until_new_pid(WORKER, old)
            service.until_worker("busy")
        load.assert_nobody_lost_an_answer()
    service.systemctl("restart", WORKER)


def test_a_stopped_front_is_replaced_by_the_watchdog(service: Service) -> None:
    with service.drop_in(FRONT, QUICK_WATCHDOG):
        service.systemctl("restart", FRONT)
        old = service.pid(FRONT)
        service.systemctl("kill", "--signal=STOP", FRONT)
        # Whoever comes meanwhile waits in the socket.
        assert service.transcribe() == TEXT
        assert service.pid(FRONT) != old
    service.systemctl("restart", FRONT)


def test_200_crashes_in_a_row_and_still_serving(service: Service) -> None:
    machine = service.machine
    machine.write("/srv/crash.py", Path(__file__).with_name("crash.py").read_text())
    before = service.worker()["restarts"]
    machine.run("/usr/bin/python3", "/srv/crash.py", "200", timeout=620)
    assert service.transcribe() == TEXT
    assert service.worker()["restarts"] == before + 200
    assert machine.show("asr-worker@0.socket", "ActiveState") == "active"


def test_a_worker_that_dies_at_its_start_waits_longer_but_is_never_given_up(
    service: Service,
) -> None:
    crash = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -SEGV $$'\n"
    unit = "asr-worker@1.service"
    show = service.machine.show
    with service.second_worker():
        with service.drop_in(unit, crash):
            service.systemctl("--no-block", "restart", unit)
            until("it crashes", lambda: int(show(unit, "NRestarts")) >= 5)
            until("a pause", lambda: show(unit, "SubState") == "stop-post")
            crashes = int(show(unit, "NRestarts"))
            for _ in range(3):
                assert service.transcribe() == TEXT
            assert int(show(unit, "NRestarts")) <= crashes + 2
        service.until_worker("ready", "1", seconds=15)
