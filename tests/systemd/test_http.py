"""asrd-http as installed: off at first, then a service of its own."""

import json
from collections.abc import Iterator

import pytest

from asrd.http.service import descriptors
from asrd.settings import HttpSettings
from tests.support.paths import ROOT
from tests.support.raw import wait_for
from tests.support.systemd.service import INSIDER, OUTSIDER, SAMPLE, TEXT, Service

pytestmark = pytest.mark.systemd

SOCKET, POST, PORT = "/run/asrd/http.sock", "/srv/post.py", "8000"
KEY = "sk-0123456789abcdef"
TCP = "[Socket]\nListenStream=127.0.0.1:8000\n"
WITH_KEYS = '[front]\nqueue_max = 64\n[http]\napi_keys = "/etc/asrd/http-keys"\n'


@pytest.fixture(scope="module")
def http(installed: Service) -> Iterator[Service]:
    installed.until_worker("ready")
    machine = installed.machine
    machine.write(POST, (ROOT / "tests/support/systemd/post.py").read_text())
    assert machine.show("asrd-http.socket", "ActiveState") == "inactive"
    installed.systemctl("enable", "--now", "asrd-http.socket")
    yield installed
    installed.systemctl("disable", "--now", "asrd-http.socket")
    installed.systemctl("stop", "asrd-http.service")


def post(http: Service, place: str, user: str, *key: str) -> tuple[str, str]:
    found = http.machine.run("python3", POST, place, SAMPLE, *key, user=user, check=False)
    status, _, body = found.stdout.partition(" ")
    return status, body or found.stderr


def test_member_gets_a_transcript_and_is_the_user_of_the_job(http: Service) -> None:
    status, body = post(http, SOCKET, INSIDER)
    assert (status, json.loads(body)["text"]) == ("200", TEXT)
    journal = http.machine.output("journalctl", "--unit=asrd", "--output=json", "--lines=20")
    users = [json.loads(line).get("ASRD_USER", "") for line in journal.splitlines()]
    ours = http.machine.output("id", "--user", INSIDER)
    gateway = http.machine.output("id", "--user", "asrd-http")
    assert f"user uid:{ours} of user {gateway}" in users


def test_outsider_cannot_connect(http: Service) -> None:
    status, error = post(http, SOCKET, OUTSIDER)
    assert status == "" and "PermissionError" in error


def test_tcp_by_a_drop_in_with_keys(http: Service) -> None:
    machine = http.machine
    machine.run("install", "-m", "640", "-g", "asrd-http", "/dev/null", "/etc/asrd/http-keys")
    machine.run("sh", "-c", f"echo 'alice {KEY}' > /etc/asrd/http-keys")
    machine.write("/etc/systemd/system/asrd-http.socket.d/tcp.conf", TCP)
    settings = (machine.root / "etc/asrd/asrd.toml").read_text()
    machine.write("/etc/asrd/asrd.toml", WITH_KEYS)
    try:
        http.systemctl("daemon-reload")
        http.systemctl("stop", "asrd-http.service")
        http.systemctl("restart", "asrd-http.socket")
        assert post(http, PORT, OUTSIDER)[0] == "401"
        status, body = post(http, PORT, OUTSIDER, KEY)
        assert (status, json.loads(body)["text"]) == ("200", TEXT)
    finally:
        machine.write("/etc/asrd/asrd.toml", settings)
        machine.run("rm", "-r", "/etc/systemd/system/asrd-http.socket.d")
        http.systemctl("daemon-reload")
        http.systemctl("stop", "asrd-http.service")
        http.systemctl("restart", "asrd-http.socket")


def test_killed_service_is_back_at_once(http: Service) -> None:
    assert post(http, SOCKET, INSIDER)[0] == "200"
    pid = http.machine.show("asrd-http.service", "MainPID")
    http.systemctl("kill", "--signal=KILL", "asrd-http.service")

    def is_back() -> bool:
        return http.machine.show("asrd-http.service", "MainPID") not in (pid, "0")

    wait_for("another process", is_back)
    assert post(http, SOCKET, INSIDER)[0] == "200"


def test_unit_allows_the_descriptors_of_the_default_settings() -> None:
    unit = (ROOT / "systemd" / "asrd-http.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("LimitNOFILE=")]
    assert int(line.partition("=")[2]) > descriptors(HttpSettings())
