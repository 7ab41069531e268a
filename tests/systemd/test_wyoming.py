"""The door for Wyoming clients, as an admin opens and shuts it, under a real systemd."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.systemd import satellite
from tests.support.systemd.service import SAMPLE, TEXT, Service
from tests.support.wyoming_page import block, commands

pytestmark = pytest.mark.systemd

DOOR = "asrd-wyoming.socket"
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")
HEARD = f"transcript {TEXT}"
# Not among the addresses of `localhost`.
OWN = "192.0.2.1"
# The machine has no ip(8): SIOCSIFADDR of netdevice(7).
_ADD_ADDRESS = f"""
import fcntl, socket, struct
with socket.socket() as sock:
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton("{OWN}"))
    fcntl.ioctl(sock, 0x8916, b"lo:1".ljust(16, bytes(1)) + address + bytes(8))
"""


@contextlib.contextmanager
def opened(service: Service) -> Iterator[None]:
    """Opens the door of the running daemon with the commands of docs/home-assistant.md, and shuts
    it as it says."""
    for command in commands("enable asrd-wyoming"):
        service.machine.run(*command)
    try:
        yield
    finally:
        for command in commands("disable --now"):
            service.machine.run(*command)


def answer(service: Service, host: str = "127.0.0.1") -> str:
    service.machine.write("/srv/satellite.py", Path(satellite.__file__).read_text())
    argv = ["/usr/bin/python3", "/srv/satellite.py", host, "10300", SAMPLE]
    done = service.machine.run(*argv, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_two_commands_open_the_door_of_a_running_daemon(service: Service) -> None:
    """No client of the main socket notices it."""
    assert "refused" in answer(service)
    with service.load() as load:
        with opened(service):
            assert answer(service) == HEARD
        assert "refused" in answer(service)
        service.until_done(2)
    load.assert_nobody_lost_an_answer()


def test_door_stays_open(service: Service) -> None:
    with opened(service):
        service.systemctl("kill", "--signal=KILL", "asrd.service")
        assert answer(service) == HEARD
        # The first connection starts a front that was stopped.
        service.systemctl("stop", "asrd.service")
        assert answer(service) == HEARD
        service.systemctl("restart", "asrd.service")
        assert answer(service) == HEARD


def test_restart_is_what_lacks_after_enable_now(service: Service) -> None:
    """systemd starts no socket of a service that runs."""
    failed = service.machine.run("systemctl", "enable", "--now", DOOR, check=False)
    assert failed.returncode != 0
    with opened(service):
        assert answer(service) == HEARD


def test_other_addresses_must_be_allowed(service: Service) -> None:
    service.machine.run("/usr/bin/python3", "-c", _ADD_ADDRESS)
    drop_in = block("ini", f"ListenStream={OWN}")
    with opened(service), service.drop_in(DOOR, drop_in + f"IPAddressAllow={OWN}\n"):
        for command in commands("stop asrd-wyoming"):
            service.machine.run(*command)
        assert answer(service, OWN) == HEARD
        assert "refused" in answer(service)
    if not UNIFIED.exists():
        pytest.skip("IPAddressAllow= needs cgroup v2, which this host does not have")
    with service.drop_in(DOOR, drop_in), opened(service):
        assert "timed out" in answer(service, OWN)
