"""HAProxy in front of three hosts (docs/scaling.md) that live on: its choice and its bounds."""

import contextlib
import hashlib
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from asrd.demo import SAMPLES
from asrd.http import errors
from tests.support.browser import Browser
from tests.support.hosts import BACKENDS, CONFIG, NAMES, Balancer, Host
from tests.support.hosts_load import Background, http_client, speak, transcribe
from tests.support.http import FORM, file, form
from tests.support.procfs import tcp_timer
from tests.support.raw import PATIENCE, SHORT, Peer, wait_for
from tests.support.real.speech import Clip

pytestmark = pytest.mark.hosts

SPOKEN = "spk1_snt1.wav"


def test_crowd_waits_in_haproxy_and_no_host_is_busy(
    tmp_path: Path, hosts: dict[str, Host], clips: dict[str, Clip]
) -> None:
    path = clips[SPOKEN].path
    bounds = dict.fromkeys(("ASRD_HTTP_MAXCONN", "ASRD_WYOMING_MAXCONN"), "2")
    bounds["ASRD_USER_MAXCONN"] = "60"
    with Balancer(tmp_path, hosts, **bounds) as balancer, http_client(balancer.http) as client:
        crowd = [Background(transcribe, client, path) for _ in range(40)]
        crowd += [Background(speak, balancer.wyoming, path) for _ in range(20)]
        (text,) = {request.result() for request in crowd}
        assert isinstance(text, str) and len(text.split()) > 3
        servers = balancer.servers()
        for backend in BACKENDS:
            assert int(servers[backend, "BACKEND"]["qmax"]) > 0
            assert all(int(servers[backend, name]["smax"]) <= 2 for name in NAMES)
    assert all(host.daemon.status()["jobs"]["refused"] == {} for host in hosts.values())


def test_user_has_a_bound(tmp_path: Path, hosts: dict[str, Host], long: Path) -> None:
    """Another user gets through meanwhile, and a place comes back with each answer."""
    with (
        Balancer(tmp_path, hosts, ASRD_USER_MAXCONN="2", ASRD_API_KEYS="yes") as balancer,
        http_client(balancer.http, key="alice") as alice,
        http_client(balancer.http, key="bob") as bob,
    ):
        running = [Background(transcribe, alice, long) for _ in range(2)]
        wait_for("both", lambda: len(balancer.serving("asrd_http")) == 2)
        with pytest.raises(openai.RateLimitError) as caught:
            alice.models.list()
        headers = caught.value.response.headers
        assert headers["retry-after-ms"] == "1000" and headers["x-should-retry"] == "true"
        check_form(429, caught.value.response.json(), "rate_limit_exceeded")
        # The key itself is nowhere.
        table = balancer.ask("show table asrd_users")
        assert hashlib.sha256(b"alice").hexdigest().upper() in table and "alice" not in table
        assert bob.models.list().data
        assert all(isinstance(each.result(), str) for each in running)
        assert alice.models.list().data
        with speaker(balancer), speaker(balancer):
            assert is_cut_off(balancer)


def check_form(status: int, body: Any, code: str) -> None:
    """The error has the form that asrd-http gives it."""
    found = body["error"]
    assert list(body) == ["error"] and found == errors.body(status, found["message"], code)


def test_key_is_no_user_where_hosts_have_none(
    tmp_path: Path, hosts: dict[str, Host], long: Path
) -> None:
    """Anybody could make up one for each request."""
    with (
        Balancer(tmp_path, hosts, ASRD_USER_MAXCONN="1") as balancer,
        http_client(balancer.http, key="one") as one,
        http_client(balancer.http, key="two") as two,
    ):
        running = Background(transcribe, one, long)
        wait_for("it", lambda: balancer.serving("asrd_http"))
        with pytest.raises(openai.RateLimitError):
            two.models.list()
        assert isinstance(running.result(), str)


def is_cut_off(balancer: Balancer) -> bool:
    """True if a Wyoming client loses its connection at once, perhaps before it knows that it is
    connected."""
    try:
        sock = socket.create_connection(("127.0.0.1", balancer.wyoming), PATIENCE)
    except ConnectionResetError:
        return True
    with Peer(sock) as peer:
        return peer.at_end()


@contextlib.contextmanager
def speaker(balancer: Balancer) -> Iterator[None]:
    """A Wyoming client that is connected to a host."""
    with Peer(socket.create_connection(("127.0.0.1", balancer.wyoming), PATIENCE)) as peer:
        peer.send("ping")
        peer.expect("pong")
        yield


def test_configuration_goes_with_debians(tmp_path: Path) -> None:
    both = tmp_path / "haproxy.cfg"
    both.write_text(Path("/etc/haproxy/haproxy.cfg").read_text() + CONFIG.read_text())
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(both)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (0, "Configuration file is valid\n"), done.stderr


def test_requests_go_to_the_host_with_the_fewest(balancer: Balancer, long: Path) -> None:
    with http_client(balancer.http) as client:
        requests = [Background(transcribe, client, long) for _ in NAMES]
        wait_for("one at each host", lambda: balancer.serving("asrd_http") == list(NAMES))
        assert len({request.result() for request in requests}) == 1


def test_client_that_hangs_up_cancels_its_job(
    balancer: Balancer, hosts: dict[str, Host], long: Path
) -> None:
    def cancelled() -> int:
        failed = [host.daemon.status()["jobs"]["failed"] for host in hosts.values()]
        return sum(each.get("cancelled", 0) for each in failed)

    before = cancelled()
    body = form(file(long.read_bytes()))
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", balancer.http), PATIENCE) as sock:
        sock.sendall(head.encode() + body)
        wait_for("the job", lambda: any(host.works() for host in hosts.values()))
    wait_for("the end of the job", lambda: cancelled() == before + 1)
    with Peer(socket.create_connection(("127.0.0.1", balancer.wyoming), PATIENCE)) as peer:
        peer.ask("a", long.read_bytes()[44:])
        wait_for("the job", lambda: any(host.works() for host in hosts.values()))
    wait_for("the end of the job", lambda: cancelled() == before + 2)


def test_kernel_asks_whether_a_client_is_there(balancer: Balancer) -> None:
    """One whose host lost its power hangs up without a word."""
    for port in (balancer.http, balancer.wyoming):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            own = sock.getsockname()[1]
            wait_for("the kernel's timer", lambda: tcp_timer(port, own) == "02")  # noqa: B023


def get(balancer: Balancer, path: str) -> tuple[int, Any, bytes]:
    url = f"http://127.0.0.1:{balancer.http}{path}"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_without_hosts_the_answer_has_the_form_of_openai(balancer: Balancer) -> None:
    assert get(balancer, "/readyz")[0] == 200
    for path in ("/metrics", "/status", "/healthz"):
        status, _, body = get(balancer, path)
        check_form(status, json.loads(body), "not_found")
    for backend in BACKENDS:
        for name in NAMES:
            balancer.ask(f"set server {backend}/{name} state maint")
    assert get(balancer, "/readyz")[0] == 503
    status, headers, body = get(balancer, "/v1/models")
    assert (status, headers["retry-after"]) == (503, "1")
    check_form(503, json.loads(body), "busy")
    assert is_cut_off(balancer)


def test_check_sees_a_host_whose_worker_does_not_load(
    balancer: Balancer, hosts: dict[str, Host]
) -> None:
    """asrd-http answers all the time."""
    host = hosts["host1"]
    with host.without_workers():
        down = ("DOWN", "host1")
        wait_for(f"{down}", lambda: balancer.are(*down, backends=BACKENDS[:1]))
        assert get(balancer, "/v1/models")[0] == 200
    balancer.wait_until("UP", "host1")


def test_web_page_works_without_the_status_of_a_host(tmp_path: Path, balancer: Balancer) -> None:
    """HAProxy hides it: each host has its own."""
    with Browser(tmp_path, SAMPLES / SHORT) as browser:
        browser.open(f"http://127.0.0.1:{balancer.http}/")
        browser.wait_for_text("Ready", "#server")
        assert not browser.one("#machine").is_displayed()
        browser.drop(SAMPLES / SHORT)
        browser.wait_for_text("Done", "article .state")
        for name in NAMES:
            balancer.ask(f"set server asrd_http/{name} state maint")
        browser.wait_for_text("Not ready", "#server")
