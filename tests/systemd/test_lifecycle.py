"""Start, restart, addition and removal of units, under a real systemd."""

import json
from functools import partial

import pytest

from tests.support.raw import wait_for
from tests.support.systemd.nspawn import SUITES
from tests.support.systemd.service import INSIDER, SAMPLE, TEXT, Service

pytestmark = [pytest.mark.systemd, pytest.mark.suites(*SUITES)]


def test_first_connection_starts_front_and_worker(service: Service) -> None:
    service.systemctl("stop", "asrd.service", "asr-worker@0.service")
    for unit in ("asrd.service", "asr-worker@0.service"):
        assert service.machine.show(unit, "ActiveState") == "inactive"
    assert service.transcribe() == TEXT
    for unit in ("asrd.service", "asr-worker@0.service"):
        assert service.machine.show(unit, "ActiveState") == "active"


def test_systemctl_status_shows_front_and_worker(service: Service) -> None:
    # Both lines may be half a second old.
    def shows(unit: str, line: str) -> bool:
        return service.machine.show(unit, "StatusText").startswith(line)

    for unit, line in {
        "asrd.service": "ok · 1/1 workers ready · queue 0/64 · ",
        "asr-worker@0.service": "ready · demo on cpu (",
    }.items():
        wait_for(f"{unit}: {line}", partial(shows, unit, line))


def test_20_front_restarts_under_load_lose_no_request(service: Service) -> None:
    with service.load(clients=4) as load:
        for _ in range(20):
            service.systemctl("restart", "asrd.service")
    load.assert_nobody_lost_an_answer(at_least=20)


def test_worker_restarts_under_load_lose_no_request(service: Service) -> None:
    before = service.status()["jobs"]["retried"]
    with service.load() as load:
        for _ in range(3):
            service.systemctl("restart", "asr-workers.target")
            service.until_done(2)
    load.assert_nobody_lost_an_answer()
    # What a worker hands back is no retry.
    assert service.status()["jobs"]["retried"] == before


def test_second_worker_joins_and_leaves_without_loss(service: Service) -> None:
    before = service.status()["jobs"]["retried"]
    with service.load() as load:
        with service.second_worker():
            wait_for("worker 1 in the status", lambda: service.worker("1"), 1.0)
            wait_for("worker 1's first job", lambda: service.worker("1").get("jobs_done"))
        assert service.machine.show("asr-worker@1.service", "ActiveState") == "inactive"
        wait_for("worker 1 to leave the status", lambda: not service.worker("1"), 2.0)
    load.assert_nobody_lost_an_answer()
    assert set(load.workers) == {"0", "1"}
    assert service.status()["jobs"]["retried"] == before


def test_idle_worker_exits_and_next_request_starts_it(service: Service) -> None:
    show = service.machine.show
    with service.settings("worker-0.toml", "idle_exit_seconds = 0.5\n"):
        service.until_worker("asleep")
        wait_for("its exit", lambda: show("asr-worker@0.service", "ActiveState") == "inactive")
        assert show("asr-worker@0.service", "Result") == "success"
        assert show("asr-worker@0.service", "ExecMainStatus") == "77"
        assert show("asr-worker@0.socket", "ActiveState") == "active"
        # Restart=always would have restarted it by now.
        service.until_worker("asleep", patience=0.5)
        assert show("asr-worker@0.service", "ActiveState") == "inactive"
        assert service.transcribe() == TEXT
        assert service.worker()["restarts"] == 0
    # The worker may have exited again before the restart with other settings.
    assert service.transcribe() == TEXT


def test_bad_model_is_reported_and_fixed_by_settings_alone(service: Service) -> None:
    show, worker = service.machine.show, "asr-worker@0.service"
    name = "/var/lib/asrd/models/none"
    with service.settings("worker-0.toml", f'model = "{name}"\n'):
        service.until_worker("failed")
        wait_for("the unit to fail", lambda: show(worker, "ActiveState") == "failed")
        # The next try may be under way, and has no status yet.
        wait_for("its status", lambda: show(worker, "ExecMainStatus") == "78")
        for command in (
            ("asrctl", "status"),
            ("systemctl", "status", worker),
            ("asrctl", "doctor"),
        ):
            run = partial(service.machine.run, *command, check=False)
            wait_for(f"{command} to name the model", lambda run=run: name in run().stdout)
        refused = service.machine.run("asrctl", "transcribe", "/etc/hostname", check=False)
        assert refused.returncode != 0
        assert name in refused.stderr
        # Into another mistake: the new reason is shown at once.
        service.machine.write("/etc/asrd/worker-0.toml", 'modle = "demo"\n')
        wait_for("the new reason", lambda: "modle" in (service.worker()["reason"] or ""), 10)
        service.machine.write("/etc/asrd/worker-0.toml", 'model = "demo"\n')
        service.until_worker("ready", patience=10)
        assert service.transcribe() == TEXT


def test_restart_of_the_target_includes_failed_workers(service: Service) -> None:
    machine, model = service.machine, "/srv/model"
    demo = "/usr/lib/python3/dist-packages/asrd/demo/model"
    with service.settings("worker-0.toml", f'model = "{model}"\n'):
        service.until_worker("failed")
        # The pauses of the front's own tries are 1, 2, 4, 8 and 16 s.
        wait_for("a longer pause", lambda: _tries(service) >= 5, 60)
        machine.run("cp", "-r", demo, model)
        service.systemctl("restart", "asr-workers.target")
        service.until_worker("ready", patience=10)
        machine.run("rm", "-r", model)


def _tries(service: Service) -> int:
    return int(service.worker()["failures"].get("cannot-load", 0))


def test_journal_has_the_job_but_not_its_text(service: Service) -> None:
    run = service.machine.run
    answer = run("asrctl", "transcribe", "--format=json", SAMPLE, user=INSIDER).stdout
    match = f"ASRD_JOB_ID={json.loads(answer)['job_id']}"
    entries = [
        json.loads(line) for line in run("journalctl", "--output=json", match).stdout.splitlines()
    ]
    assert entries
    uid = run("id", "-u", INSIDER).stdout.strip()
    assert {entry["ASRD_PEER_UID"] for entry in entries} == {uid}
    assert {entry["PRIORITY"] for entry in entries} == {"6"}
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {"asrd.service"}
    assert TEXT not in run("journalctl", "--boot").stdout
