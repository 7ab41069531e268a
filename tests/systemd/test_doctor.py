"""The fixes that `asrctl doctor` prints: each test breaks something, does what is printed, and sees
it work again."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asrd.demo import MODEL
from tests.support.raw import wait_for
from tests.support.systemd.nspawn import SUITES
from tests.support.systemd.service import INSIDER, OUTSIDER, TEXT, Service

pytestmark = [pytest.mark.package, pytest.mark.suites(*SUITES)]

# The machine has no sudo. An editor is played by sed.
_TYPED = 'sudo() { "$@"; }; sudoedit() { sed -i "$edit" "$1"; }; edit=$1; '
WORDS = "/var/lib/asrd/models/words"


def wrong(service: Service, user: str | None = None) -> list[dict[str, Any]]:
    found = service.machine.run("asrctl", "doctor", "--json", user=user, check=False).stdout
    return [each for each in json.loads(found) if each["verdict"] == "wrong"]


def named(service: Service, text: str) -> list[dict[str, Any]]:
    """Returns all that is wrong, once that text is in it."""
    found: list[dict[str, Any]] = wait_for(
        f"the doctor to see {text!r}",
        lambda: [each for each in [wrong(service)] if text in json.dumps(each)],
    )[0]
    return found


def do_as_printed(service: Service, findings: list[dict[str, Any]], edit: str = "") -> None:
    fixes = dict.fromkeys(each["fix"] for each in findings if each["fix"])
    assert fixes, findings
    for fix in fixes:
        service.machine.run("bash", "-ec", _TYPED + fix, "bash", edit)


def until_sound(service: Service) -> None:
    # Longer than a service may have been in a loop.
    wait_for("a sound machine", lambda: wrong(service) == [], patience=60)
    service.until_worker("ready")
    assert service.transcribe(INSIDER) == TEXT


def sh(service: Service, command: str) -> None:
    service.machine.run("sh", "-ec", command)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ("rm /run/asrd/asrd.sock", "asrd.socket has lost /run/asrd/asrd.sock"),
        ("rm /run/asrd/status.sock", "asrd-status.socket has lost /run/asrd/status.sock"),
        ("rm /run/asrd/worker/0.sock", "asr-worker@0.socket has lost"),
        ("systemctl stop asrd.socket", "asrd.socket is not active"),
        ("systemctl disable --now asrd.socket", "asrd.socket is not active"),
        ("systemctl stop asrd-status.socket", "asrd-status.socket is not active"),
        ("systemctl stop asr-worker@0.socket", "asr-worker@0.socket is not active"),
        ("systemctl disable --now asr-worker@0.socket", "no worker's socket is active"),
        ("systemctl mask --now asrd.service", "asrd.service is masked"),
        ("systemctl mask --now asrd.socket", "asrd.socket is masked"),
        ("systemctl mask --now asr-worker@0.socket", "asr-worker@0.socket is masked"),
        ("systemctl mask --now asr-worker@0.service", "asr-worker@0.service is masked"),
        (
            "systemctl mask asr-worker@.service; ! systemctl restart asr-worker@0.socket",
            "asr-worker@0.service is masked",
        ),
    ],
)
def test_unit_runs_again(service: Service, damage: str, text: str) -> None:
    sh(service, damage)
    do_as_printed(service, named(service, text))
    until_sound(service)


def test_socket_that_has_failed(service: Service) -> None:
    """The mistake of a drop-in is corrected already."""
    unit = "asr-worker@0.socket"
    with service.drop_in(unit, "[Socket]\nListenStream=/proc/none\n"):
        sh(service, f"! systemctl restart {unit}")
    do_as_printed(service, named(service, f"{unit} has failed (resources)"))
    until_sound(service)


def test_settings_of_a_worker_get_their_socket(service: Service) -> None:
    service.machine.write("/etc/asrd/worker-1.toml", 'model = "demo"\n')
    text = "asr-worker@1.socket is not active, so that /etc/asrd/worker-1.toml has no effect"
    try:
        do_as_printed(service, named(service, text))
        service.until_worker("ready", "1")
    finally:
        sh(service, "rm /etc/asrd/worker-1.toml; systemctl disable --now asr-worker@1.socket")
    until_sound(service)


@pytest.mark.parametrize(
    ("settings", "text", "edit"),
    [
        ("quue_max = 3\n", "asrd.toml:2: unknown key", "/quue/d"),
        ("queue_max =\n", "asrd.toml: Invalid value (at line 2", "s/=/= 3/"),
    ],
)
def test_settings_that_are_wrong(service: Service, settings: str, text: str, edit: str) -> None:
    path = service.machine.root / "etc/asrd/asrd.toml"
    before = path.read_text()
    path.write_text(f"[front]\n{settings}")
    try:
        do_as_printed(service, named(service, text), edit)
        until_sound(service)
    finally:
        path.write_text(before)


def test_settings_that_the_daemon_cannot_read(service: Service) -> None:
    sh(service, "chmod 600 /etc/asrd/asrd.toml; systemctl restart asrd || :")
    try:
        do_as_printed(service, named(service, "can't read /etc/asrd/asrd.toml"))
        until_sound(service)
    finally:
        sh(service, "chmod 644 /etc/asrd/asrd.toml")


# --- models ---------------------------------------------------------------------------------------


@contextmanager
def model(service: Service, path: str = WORDS) -> Iterator[None]:
    """Worker 0 has a copy of the demo model there."""
    copy = service.machine.root / path.lstrip("/")
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(MODEL, copy)
    # Not those of this checkout.
    sh(service, f"chmod -R u=rwX,go=rX {path}")
    try:
        with service.settings("worker-0.toml", f'model = "{path}"\n'):
            yield
    finally:
        shutil.rmtree(copy)
    until_sound(service)


@pytest.mark.parametrize(
    "damage",
    [
        f"chmod 700 {WORDS}",
        f"chmod 600 {WORDS}/model.bin",
        f"chmod 700 {WORDS}; chmod 600 {WORDS}/*",
        "chmod 700 /var/lib/asrd/models",
    ],
)
def test_model_that_the_worker_cannot_read(service: Service, damage: str) -> None:
    with model(service):
        sh(service, f"{damage}; systemctl restart asr-worker@0.socket")
        service.until_worker("failed")
        do_as_printed(service, named(service, "the workers (group asr-worker) can't read"))
        until_sound(service)


def test_model_of_the_workers_group_is_in_order(service: Service) -> None:
    with model(service):
        sh(service, f"chgrp -R asr-worker {WORDS}; chmod -R o= {WORDS}")
        sh(service, "systemctl restart asr-worker@0.socket")
        until_sound(service)
        # A user who can't see it does not blame it.
        assert wrong(service, INSIDER) == []


def test_model_that_is_hidden_by_the_sandbox(service: Service) -> None:
    hidden = "/home/ann/words"
    with model(service, hidden):
        text = f"{hidden} is hidden from workers by their sandbox"
        do_as_printed(service, named(service, text), 's/".*"/"words"/')
        until_sound(service)
        assert service.worker()["model"] == "words"
    shutil.rmtree(service.machine.root / WORDS.lstrip("/"))


def test_model_that_is_cut_off_is_named(service: Service) -> None:
    with model(service):
        sh(service, f"truncate -s 100000 {WORDS}/model.bin; systemctl restart asr-worker@0.socket")
        found = named(service, "it is cut off after 100,000 bytes")
        assert {each["subject"] for each in found} >= {"models"}


# --- users ----------------------------------------------------------------------------------------


def test_user_outside_the_group_gets_in_with_the_next_login(service: Service) -> None:
    machine = service.machine
    (found,) = wrong(service, OUTSIDER)
    try:
        do_as_printed(service, [found])
        assert service.transcribe(OUTSIDER) == TEXT
        # In a session that is older than that:
        old = ["setpriv", f"--reuid={OUTSIDER}", f"--regid={OUTSIDER}", "--clear-groups"]
        doctor = machine.run(*old, "asrctl", "doctor", "--json", check=False).stdout
        (fix,) = [each["fix"] for each in json.loads(doctor) if each["verdict"] == "wrong"]
        assert fix == "newgrp asr"
        assert "answered in" in machine.output(*old, "sh", "-c", f"echo asrctl ping | {fix}")
    finally:
        machine.run("gpasswd", "--delete", OUTSIDER, "asr")


# --- the disk -------------------------------------------------------------------------------------


def test_full_run_is_named(service: Service) -> None:
    fill = "dd if=/dev/zero of=/run/filled bs=1M 2>/dev/null || :"
    sh(service, fill)
    try:
        (found,) = named(service, "are free under /run")
        assert "du " in found["see"]
        assert service.transcribe(INSIDER) == TEXT
    finally:
        sh(service, "rm /run/filled")
    until_sound(service)
