"""Restarts and upgrades while a long job runs: connections stay, and clients see a pause."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw import wait_for
from tests.support.systemd import pauses
from tests.support.systemd.nspawn import SUITES
from tests.support.systemd.service import INSIDER, SAMPLE, Service, install

pytestmark = [pytest.mark.systemd, pytest.mark.suites(*SUITES)]

SECONDS = 300


def disturbed(service: Service, what: Callable[[], object]) -> dict[str, Any]:
    """Does `what` in the middle of a long job. Returns the longest pauses, and the attempts of each
    job; the client fails unless each has the undisturbed text."""
    service.machine.write("/srv/pauses.py", Path(pauses.__file__).read_text())
    argv = ["/usr/bin/python3", "/srv/pauses.py", SAMPLE, str(SECONDS)]
    process = service.machine.start(*argv, user=INSIDER)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        what()
        output, errors = process.communicate(timeout=120)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, errors
    found: dict[str, Any] = json.loads(output)
    print(f"longest pauses: {found['longest']}; attempts: {found['attempts']}")
    return found


def test_restart_of_the_front_hands_its_clients_over(service: Service) -> None:
    service.until_worker("ready")
    worker = service.pid("asr-worker@0.service")

    def restart() -> None:
        with service.load(clients=2) as load:
            before = service.pid("asrd.service")
            service.systemctl("restart", "asrd.service")
            assert service.pid("asrd.service") != before
            service.until_done(2)
        load.assert_nobody_lost_an_answer()

    found = disturbed(service, restart)
    assert max(found["attempts"]) == 2
    assert service.status()["jobs"]["resumed"] >= 1
    assert service.pid("asr-worker@0.service") == worker


def test_restart_of_the_workers_stops_no_connection(service: Service) -> None:
    service.until_worker("ready")
    found = disturbed(service, lambda: service.systemctl("restart", "asr-workers.target"))
    assert max(found["attempts"]) == 2


def test_workers_restarted_one_after_the_other_are_never_all_away(service: Service) -> None:
    with service.second_worker():
        service.until_worker("ready")
        service.until_worker("ready", "1")
        units = [f"asr-worker@{name}.service" for name in "01"]
        before = list(map(service.pid, units))
        with service.load() as load:
            process = service.machine.start("asrctl", "restart-workers")
            while process.poll() is None:
                states = [worker["state"] for worker in service.status()["workers"]]
                assert "ready" in states or "busy" in states, states
            output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert [line.split()[0] for line in output.splitlines()] == units
        assert not set(before) & set(map(service.pid, units))
        load.assert_nobody_lost_an_answer()


def test_mistake_stops_one_worker_and_not_all(service: Service) -> None:
    own = service.machine.root / "etc/asrd/worker-0.toml"
    with service.second_worker():
        service.until_worker("ready", "1")
        untouched = service.pid("asr-worker@1.service")
        try:
            own.write_text("model = '/nowhere'\n")
            done = service.machine.run("asrctl", "restart-workers", check=False)
            assert done.returncode == 1
            assert "asr-worker@0.service did not come up; the workers after it" in done.stderr
            assert service.pid("asr-worker@1.service") == untouched
            service.transcribe()
        finally:
            own.unlink()
        service.until_worker("ready")


def test_reinstallation_hands_the_clients_over(service: Service, debs: Path) -> None:
    service.until_worker("ready")
    before = service.pid("asrd.service")

    def upgrade() -> None:
        install(service.machine, Path("--reinstall"), *debs.glob("*.deb"))
        wait_for("the next front", lambda: service.pid("asrd.service") not in (0, before))

    found = disturbed(service, upgrade)
    assert max(found["attempts"]) >= 2


def test_stop_is_bounded_and_says_what_it_waits_for(service: Service) -> None:
    with service.drop_in("asrd.service", "[Service]\nEnvironment=ASRD_FRONT_DRAIN_SECONDS=1\n"):
        service.systemctl("restart", "asrd.service")
        service.until_worker("ready")
        service.machine.write("/srv/pauses.py", Path(pauses.__file__).read_text())
        argv = ["/usr/bin/python3", "/srv/pauses.py", SAMPLE, str(SECONDS)]
        process = service.machine.start(*argv, user=INSIDER)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        before = service.pid("asrd.service")
        service.systemctl("--no-block", "stop", "asrd.service")
        wait_for(
            "the reason for the wait",
            lambda: service.machine.show("asrd.service", "StatusText").startswith("stopping: "),
        )
        # The next question about the status starts another one.
        wait_for("the end", lambda: service.pid("asrd.service") != before)
        process.kill()
        process.communicate()
    service.systemctl("restart", "asrd.service")
