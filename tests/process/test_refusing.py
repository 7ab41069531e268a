"""The front while its settings are wrong, with the sockets that systemd would pass."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd.client.client import Client
from asrd.errors import Code
from asrd.snapshot import SETTINGS_WRONG
from tests.support.daemons import Front
from tests.support.notifications import notifications
from tests.support.raw import PATIENCE, SECOND, wait_for
from tests.support.users import START

MISTAKE = "asrd.toml:4: unknown key 'queue_mx'"


@pytest.fixture
def refusing(tmp_path: Path, manager: socket.socket) -> Iterator[Front]:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "asrd.sock"))
        unix.listen()
        with Front(tmp_path, "0", config="queue_mx = 7", passed=[unix]) as daemon:
            yield daemon


def change(front: Front, old: str, text: str) -> None:
    """Changes the settings at once, as an editor does."""
    settings = front.tmp / "asrd.toml"
    new = settings.with_suffix(".new")
    new.write_text(settings.read_text().replace(old, text))
    new.replace(settings)


def test_each_kind_of_request_is_answered_with_the_mistake(refusing: Front) -> None:
    with refusing.connect() as client:
        client.ask("one")
        error = client.expect("error")
        assert (error["code"], error["job_id"]) == (Code.UNAVAILABLE, "one")
        assert MISTAKE in error["text"]
        client.send("transcribe", {"job_id": "two"})
        client.send("audio-start", START)
        client.send("audio-chunk", START, SECOND)
        client.send("audio-stop")
        error = client.expect("error")
        assert (error["code"], error["job_id"]) == (Code.UNAVAILABLE, "two")
        client.send("ping")
        client.expect("pong")
    with refusing.connect() as plain:
        plain.send("audio-start", START)
        plain.send("audio-stop")
        assert MISTAKE in plain.expect("error")["text"]
        assert plain.at_end()


def test_mistake_is_in_status_and_in_the_service_managers_line(
    refusing: Front, manager: socket.socket
) -> None:
    status = refusing.status()
    assert status["state"] == "unavailable"
    assert status["problems"][0].startswith(f"{SETTINGS_WRONG}{refusing.tmp}/{MISTAKE}")
    with Client(refusing.socket) as client:
        assert "crashes" not in client.status(crashes=True)
    told = "\n".join(notifications(manager)).splitlines()
    assert "READY=1" in told
    assert any(line.startswith("STATUS=unavailable") and MISTAKE in line for line in told)
    # The watchdog must not end it.
    wait_for("a ping", lambda: "WATCHDOG=1" in notifications(manager))


def test_front_serves_as_soon_as_the_settings_are_right(refusing: Front) -> None:
    pid = refusing.status()["pid"]
    change(refusing, "queue_mx = 7", "queue_max = 'x'")
    wait_for("the other mistake", lambda: "toml:4: queue_max" in refusing.status()["problems"][0])
    change(refusing, "'x'", "7")
    with refusing.ready() as worker, refusing.connect() as client:
        client.ask()
        client.expect("accepted")
        worker.serve_job()
        client.expect("transcript")
    assert refusing.status()["pid"] == pid
    assert refusing.status()["queue"]["max"] == 7


def test_client_that_has_just_connected_gets_its_answer_when_the_front_goes_on(
    refusing: Front,
) -> None:
    with refusing.connect() as client:
        change(refusing, "queue_mx", "queue_max")
        wait_for("the settings to be right", lambda: "are right again" in refusing.log)
        client.ask()
        assert client.expect("error")["code"] == Code.UNAVAILABLE
    with refusing.ready():
        pass


def test_refusing_front_stops_at_sigterm(refusing: Front) -> None:
    refusing.process.terminate()
    assert refusing.process.wait(PATIENCE) == 0
