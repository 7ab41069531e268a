"""Permissions of clients, of outsiders, and of a compromised worker."""

import json
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.raw import wait_for
from tests.support.systemd.nspawn import SUITES, Machine
from tests.support.systemd.service import INSIDER, OUTSIDER, SAMPLE, TEXT, Service

pytestmark = [pytest.mark.systemd, pytest.mark.suites(*SUITES)]

CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


def may_connect(machine: Machine, user: str, path: str) -> bool:
    argv = ("python3", "-c", CONNECT, path)
    done = machine.run(*argv, user=user, check=False)
    assert done.returncode == 0 or "PermissionError" in done.stderr
    return done.returncode == 0


def test_outsider_may_ask_for_status_but_not_send_audio(service: Service) -> None:
    refused = service.machine.run("asrctl", "transcribe", SAMPLE, user=OUTSIDER, check=False)
    assert refused.returncode == 3
    assert "group asr" in refused.stderr
    assert "demo" in service.machine.output("asrctl", "status", user=OUTSIDER)
    assert service.transcribe(INSIDER) == TEXT


def test_doctor_shows_outsider_the_command_that_helps(service: Service) -> None:
    doctor = service.machine.run("asrctl", "doctor", user=OUTSIDER, check=False)
    assert doctor.returncode == 1
    assert f"sudo usermod -aG asr {OUTSIDER}\n" in doctor.stdout
    assert doctor.stdout.count("WRONG") == 1


def test_status_socket_takes_no_audio(service: Service) -> None:
    argv = ("asrctl", "--socket", "/run/asrd/status.sock", "transcribe", SAMPLE)
    refused = service.machine.run(*argv, user=OUTSIDER, check=False)
    assert refused.returncode == 2
    assert TEXT not in refused.stdout


@pytest.mark.parametrize(
    ("user", "path", "allowed"),
    [
        (INSIDER, "/run/asrd/asrd.sock", True),
        (OUTSIDER, "/run/asrd/asrd.sock", False),
        (OUTSIDER, "/run/asrd/status.sock", True),
        (INSIDER, "/run/asrd/worker/0.sock", False),
        (OUTSIDER, "/run/asrd/worker/0.sock", False),
        ("asrd", "/run/asrd/worker/0.sock", True),
    ],
)
def test_user_may_connect_only_where_allowed(
    service: Service, user: str, path: str, allowed: bool
) -> None:
    assert may_connect(service.machine, user, path) == allowed


def test_member_neither_sees_nor_cancels_job_of_another(service: Service) -> None:
    """The worker is stopped, so that the job runs during the test."""
    machine, worker = service.machine, "asr-worker@0.service"
    machine.run("useradd", "--groups", "asr", "eve")
    service.systemctl("kill", "--signal=STOP", worker)
    with machine.start("asrctl", "transcribe", SAMPLE, user=INSIDER) as asking:
        try:
            (job,) = wait_for("the job to run", lambda: service.worker().get("jobs"))
            job_id = job["job_id"]
            assert job_id in machine.output("asrctl", "status", "--json", user=INSIDER)
            assert job_id not in machine.output("asrctl", "status", "--json", user="eve")
            refused = machine.run("asrctl", "cancel", job_id, user="eve", check=False)
            assert f"you have no job {job_id}" in refused.stderr
        finally:
            service.systemctl("kill", "--signal=CONT", worker)
            output, errors = asking.communicate(timeout=60)
            machine.run("userdel", "eve")
    assert (output.strip(), asking.returncode) == (TEXT, 0), errors


def probe(service: Service) -> dict[str, Any]:
    """The resources within reach of a program that runs in a worker's unit as shipped."""
    machine = service.machine
    machine.write("/srv/probe.py", (ROOT / "tests/support/systemd/probe.py").read_text())
    pids = f"{service.pid('asrd.service')} {service.pid('asr-worker@0.service')}"
    unit = "asr-worker@1.service"
    text = "[Service]\nType=exec\nRestart=no\nExecStart=\n"
    text += f"ExecStart=/usr/bin/python3 /srv/probe.py {pids}\n"
    with service.drop_in(unit, text), service.second_worker():
        found = wait_for("the probe's report", lambda: _found(machine, unit))
    reach: dict[str, Any] = json.loads(found)
    return reach


def _found(machine: Machine, unit: str) -> str:
    lines = machine.run("journalctl", "--output=cat", f"--unit={unit}").stdout.splitlines()
    return next((line[5:] for line in lines if line.startswith("PROBE")), "")


def test_worker_reaches_no_network_no_home_no_other_process(service: Service) -> None:
    reach = probe(service)
    user = int(reach.pop("user"))
    # The range of systemd's dynamic users.
    assert 61184 <= user <= 65519
    assert reach == {
        "internet": "OSError",
        "internet 6": "OSError",
        "netlink": "OSError",
        "interfaces": "['lo']",
        "home": "PermissionError",
        "root's home": "PermissionError",
        "other processes": "[]",
        "signal to the front": "PermissionError",
        "signal to a worker": "PermissionError",
        "memory of a worker": "FileNotFoundError",
        "a worker's socket": "PermissionError",
        "the clients' socket": "PermissionError",
        "write to /var/lib": "OSError",
        "write to /etc": "OSError",
        "write to its cache": "0",
    }


def test_voice_detector_leaves_no_telemetry(service: Service) -> None:
    argv = ("asrctl", "transcribe", "--vad-filter", SAMPLE)
    assert service.machine.output(*argv, user=INSIDER)
    found = service.machine.output("find", "/", "-xdev", "-ipath", "*microsoft*")
    assert found == ""
