"""Processes that die or hang by a real signal, under a real systemd."""

import json
import time
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.raw import wait_for
from tests.support.systemd.memory import host_pid, little_memory
from tests.support.systemd.nspawn import SUITES
from tests.support.systemd.service import INSIDER, OUTSIDER, SAMPLE, SAMPLES, TEXT, Service

pytestmark = [pytest.mark.systemd, pytest.mark.suites(*SUITES)]

WORKER, FRONT = "asr-worker@0.service", "asrd.service"
PAUSE = "asr-worker-pause@1.service"
# Seconds before each start that is not ready: systemd/restart-backoff.
PAUSES = [0, 0, 0, 0, 0.5, 1, 2, 4] + [8] * 100
# The units as shipped wait longer than a test should.
QUICK_WATCHDOG = "[Service]\nWatchdogSec=2s\n"


@pytest.mark.parametrize("signal", ["SEGV", "KILL"])
def test_worker_killed_under_load_loses_no_answer(service: Service, signal: str) -> None:
    with service.load() as load:
        for _ in range(3):
            # No job may be killed twice.
            service.until_done(2)
            service.systemctl("kill", f"--signal={signal}", WORKER)
    load.assert_nobody_lost_an_answer()
    assert load.retried >= 1


def test_watchdog_replaces_stopped_worker_and_its_job_is_answered(service: Service) -> None:
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


def test_watchdog_replaces_stopped_front(service: Service) -> None:
    with service.drop_in(FRONT, QUICK_WATCHDOG):
        service.systemctl("restart", FRONT)
        old = service.pid(FRONT)
        service.systemctl("kill", "--signal=STOP", FRONT)
        # A client that connects while the front is stopped waits in the socket.
        assert service.transcribe() == TEXT
        assert service.pid(FRONT) != old
    service.systemctl("restart", FRONT)


@pytest.mark.suites("bookworm")
def test_worker_serves_after_200_crashes_in_a_row(service: Service) -> None:
    machine = service.machine
    machine.write("/srv/crash.py", (ROOT / "tests/support/systemd/crash.py").read_text())
    before = service.worker()["restarts"]
    machine.run("/usr/bin/python3", "/srv/crash.py", "200", timeout=620)
    assert service.transcribe() == TEXT
    assert service.worker()["restarts"] == before + 200
    assert machine.show("asr-worker@0.socket", "ActiveState") == "active"


def test_worker_that_dies_at_start_is_restarted_with_pauses(service: Service) -> None:
    crash = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -SEGV $$'\n"
    unit = "asr-worker@1.service"
    show = service.machine.show
    with service.second_worker():
        with service.drop_in(unit, crash):
            service.systemctl("--no-block", "restart", unit)
            wait_for("five crashes", lambda: int(show(unit, "NRestarts")) >= 5)
            wait_for("a pause", lambda: show(PAUSE, "ActiveState") == "activating")
            crashes = int(show(unit, "NRestarts"))
            for _ in range(3):
                assert service.transcribe() == TEXT
            assert int(show(unit, "NRestarts")) <= crashes + 2
        service.until_worker("ready", "1", patience=15)


def test_worker_without_its_cache_directory_is_restarted_with_pauses(service: Service) -> None:
    """No line of its unit runs then, ExecStopPost= included."""
    unit, machine = "asr-worker@1.service", service.machine
    machine.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/var/cache")
    began = time.monotonic()
    try:
        service.systemctl("enable", "--now", "asr-worker@1.socket")
        wait_for("restarts", lambda: int(machine.show(unit, "NRestarts")) >= 6)
        assert machine.show(unit, "ExecMainStatus") == "239"
        assert service.transcribe() == TEXT
        restarts = int(machine.show(unit, "NRestarts"))
        assert sum(PAUSES[:restarts]) <= time.monotonic() - began
    finally:
        machine.run("umount", "/var/cache")
    try:
        service.until_worker("ready", "1", patience=15)
    finally:
        service.systemctl("disable", "--now", "asr-worker@1.socket")


def test_front_with_a_mistake_in_its_settings_refuses_until_it_is_corrected(
    service: Service,
) -> None:
    machine, path = service.machine, "/etc/asrd/asrd.toml"
    right = (machine.root / path[1:]).read_text()
    mistake = f"{path}:2: unknown key 'queue_mx'"
    machine.write(path, "[front]\nqueue_mx = 1\n")
    try:
        service.systemctl("restart", FRONT)
        pid = service.pid(FRONT)
        check = machine.run("asrd", "check", check=False)
        assert check.returncode == 1
        assert f"WRONG  settings: {mistake}\n" in check.stdout
        refused = machine.run("asrctl", "transcribe", SAMPLE, check=False)
        assert refused.returncode == 9
        assert mistake in refused.stderr
        assert mistake in service.status()["problems"][0]
        assert mistake in machine.show(FRONT, "StatusText")
        health = machine.run("asrctl", "health", user=OUTSIDER, check=False)
        assert health.returncode == 2
        # `systemctl restart` is no check: the unit is active.
        assert machine.show(FRONT, "ActiveState") == "active"
        assert machine.show(FRONT, "NRestarts") == "0"
    finally:
        machine.write(path, right)
    service.until_worker("ready")
    assert service.transcribe() == TEXT
    assert service.pid(FRONT) == pid
    assert machine.run("asrd", "check").returncode == 0


def running(service: Service) -> list[str]:
    return [job["job_id"] for job in service.worker()["jobs"]]


def test_worker_that_the_kernel_kills_for_its_memory_is_named(service: Service) -> None:
    """In a container systemd has no memory controller, and sees only SIGKILL."""
    killed = service.pid(WORKER)
    argv = ["asrctl", "transcribe", f"{SAMPLES}/en-minute.flac"]
    with little_memory(host_pid(service.machine, killed)):
        assert service.machine.output(*argv, user=INSIDER)
    crash = wait_for("the report", lambda: _crash(service, killed))
    assert crash["exit"] in (
        "killed by SIGKILL, perhaps out of memory",
        "out of memory (killed by SIGKILL)",
    )
    assert service.worker()["failures"]["out-of-memory"] == 1


def test_crash_report_has_signal_job_and_stderr(service: Service) -> None:
    machine = service.machine
    machine.write("/srv/long.py", LONG)
    client = machine.start("/usr/bin/python3", "/srv/long.py", f"{SAMPLES}/en-minute.flac")
    try:
        wait_for("the job to start", lambda: running(service) == ["long"])
        pid = service.pid(WORKER)
        service.systemctl("kill", "--signal=SEGV", WORKER)
        output, errors = client.communicate(timeout=60)
    finally:
        client.kill()
        client.communicate()
    assert output.strip() == "2 attempts", errors
    crash = wait_for("the report", lambda: _crash(service, pid))
    (job,) = crash["jobs"]
    assert (crash["worker"], crash["exit"]) == ("0", "killed by SIGSEGV")
    assert crash["stderr"].startswith("Fatal Python error: Segmentation fault / File ")
    assert (job["job_id"], job["trace_id"], job["attempt"]) == ("long", "trace-1", 1)
    journal = machine.output("journalctl", "--output=cat", "ASRD_JOB_ID=long")
    assert "its last output on stderr: Fatal Python error: Segmentation fault" in journal
    assert machine.output("journalctl", "ASRD_TRACE_ID=trace-1")
    # The whole traceback is in the journal of the unit that wrote it.
    assert "(most recent call first)" in machine.output("journalctl", f"--unit={WORKER}")
    assert "killed by SIGSEGV" in machine.output("asrctl", "status", "--crashes")
    # A user who may not send audio sees only that the worker died.
    stranger = _crash(service, pid, OUTSIDER)
    assert (stranger["jobs"], stranger["other_jobs"], stranger["stderr"]) == ([], 1, None)
    # The next front has the report, too.
    service.systemctl("restart", FRONT)
    assert _crash(service, pid) == crash


# The job is so long that even a slow machine kills its worker in the middle.
LONG = """
import sys
sys.path.append("/usr/lib/asrd/vendor")
from asrd import Client
with Client() as client:
    done = client.transcribe(sys.argv[1], job_id="long", trace_id="trace-1", beam_size=5)
print(done.attempts, "attempts")
"""


def _crash(service: Service, pid: int, user: str | None = None) -> dict[str, Any]:
    argv = ("asrctl", "status", "--crashes", "--json")
    crashes = json.loads(service.machine.output(*argv, user=user))["crashes"]
    found = [crash for crash in crashes if crash["pid"] == pid and crash["exit"]]
    return found[0] if found else {}
