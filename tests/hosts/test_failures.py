"""Hosts behind HAProxy that die and restart (docs/scaling.md). Each test has hosts of its own."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from asrd.engine.audio.reader import RATE
from tests.support.hosts import BACKENDS, NAMES, Balancer, Host, three_hosts
from tests.support.hosts_load import Background, Load, http_client, speak, transcribe
from tests.support.paths import ROOT
from tests.support.raw import PATIENCE, wait_for
from tests.support.real.speech import Clip
from tests.support.sounds import encoded
from tests.support.wyoming_page import block

pytestmark = pytest.mark.hosts

PAGE = (ROOT / "docs" / "scaling.md").read_text()
COMMANDS = ("spk1_snt1.wav", "spk1_snt2.wav", "spk1_snt3.wav")


@pytest.fixture
def hosts(model: Path, tmp_path: Path) -> Iterator[dict[str, Host]]:
    with three_hosts(tmp_path, model) as running:
        yield running


def accepted(hosts: dict[str, Host], without: str) -> dict[str, int]:
    return {name: host.accepted for name, host in hosts.items() if name != without}


def by_page(text: str, balancer: Balancer) -> None:
    """Runs the page's commands, as root would."""
    script = block("sh", text, PAGE).replace("/run/haproxy/admin.sock", str(balancer.admin))
    script = script.replace("sudo ", "")
    subprocess.run(["sh", "-ec", script], timeout=PATIENCE, check=True)


def test_load_loses_nothing_but_what_clients_try_again(
    balancer: Balancer, hosts: dict[str, Host], clips: dict[str, Clip]
) -> None:
    """One host dies, one is drained and restarted, and one asrd-http restarts."""
    with http_client(balancer.http) as client:
        texts = {clips[name].path: transcribe(client, clips[name].path) for name in COMMANDS}
    load = Load(balancer.http, balancer.wyoming, texts)
    start, cpu = time.monotonic(), balancer.cpu_seconds()
    with load.running(http=6, wyoming=3):
        load.wait_for_answers(15)
        assert load.failed == []
        hosts["host1"].kill()
        noticed = balancer.wait_until("DOWN", "host1")
        load.wait_for_answers(15)
        of_the_kill = list(load.failed)
        # Each client has one request, and fails once if that was at the host.
        assert len(of_the_kill) <= 9
        # New requests went elsewhere at once.
        assert all(balancer.servers()[each, "BACKEND"]["econ"] == "0" for each in BACKENDS)
        hosts["host1"].start()
        balancer.wait_until("UP", "host1")
        load.wait_for_answers(15)

        by_page("state drain", balancer)
        assert not any("host2" in balancer.serving(backend) for backend in BACKENDS)
        hosts["host2"].stop()
        load.wait_for_answers(15)
        hosts["host2"].start()
        by_page("state ready", balancer)
        balancer.wait_until("UP", "host2")
        load.wait_for_answers(15)

        hosts["host3"].stop_http()
        hosts["host3"].start_http()
        balancer.wait_until("UP", "host3")
        load.wait_for_answers(15)
    assert load.lost == []
    assert load.failed == of_the_kill
    assert min(load.hosts.get(name, 0) for name in NAMES) > 10
    print(f"\n{load.summary(time.monotonic() - start)}")
    print(f"after the kill: DOWN after {noticed:.1f} s, tries that failed: {of_the_kill}")
    print(f"HAProxy: {balancer.cpu_seconds() - cpu:.2f} s of processor time")


@pytest.fixture
def small(clips: dict[str, Clip], tmp_path: Path) -> Path:
    """Fits into one buffer of HAProxy, which could send it again."""
    path = tmp_path / "small.ogg"
    path.write_bytes(encoded(clips[COMMANDS[0]].audio[:RATE], "ogg", "libopus", 48_000))
    assert path.stat().st_size < 14_000
    return path


@pytest.mark.parametrize("door", BACKENDS)
def test_request_of_a_dead_host_is_not_sent_to_another(
    balancer: Balancer, hosts: dict[str, Host], clips: dict[str, Clip], small: Path, door: str
) -> None:
    """Its recording may be why the host died: the client decides."""
    with ExitStack() as stack:
        client = stack.enter_context(http_client(balancer.http))
        for host in hosts.values():
            stack.enter_context(host.frozen_worker())
        if door == "asrd_http":
            request = Background(transcribe, client, small)
        else:
            request = Background(speak, balancer.wyoming, clips[COMMANDS[0]].path)
        (name,) = wait_for("the request", lambda: balancer.serving(door))
        wait_for("its job", hosts[name].works)
        hosts[name].kill()
        error = request.result()
    assert accepted(hosts, name) == dict.fromkeys(set(NAMES) - {name}, 0)
    if door == "asrd_http":
        assert isinstance(error, openai.APIStatusError) and error.status_code == 502
        assert error.response.headers["retry-after"] == "1"
        assert error.code == "host-died"
    else:
        assert isinstance(error, OSError | ValueError)
