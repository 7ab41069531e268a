"""The doctor's checks of systemd's units; tests/systemd/test_doctor.py applies what they print."""

import time
from pathlib import Path

import pytest

from asrd.asrctl import unit_checks
from asrd.asrctl.finding import Verdict
from tests.support.doctor import SOUND, WORKER, FakeHost, diagnosed, wrongs

RESTART, ENABLE = "sudo systemctl restart", "sudo systemctl enable --now"


@pytest.mark.parametrize(
    ("unit", "change", "text", "fix"),
    [
        ("asrd.socket", {"ActiveState": "inactive"}, "is not active", f"{RESTART} asrd"),
        (
            "asrd.socket",
            {"ActiveState": "inactive", "UnitFileState": "disabled"},
            "is not active",
            f"sudo systemctl enable asrd.socket && {RESTART} asrd",
        ),
        (
            "asr-worker@0.socket",
            {"ActiveState": "inactive"},
            "is not active",
            f"{ENABLE} asr-worker@0.socket",
        ),
        (
            "asrd.socket",
            {"LoadState": "not-found"},
            "is not installed",
            "sudo apt install --reinstall asrd",
        ),
        (
            "asrd.socket",
            {"ActiveState": "failed", "Result": "trigger-limit-hit"},
            "has failed (trigger-limit-hit)",
            f"sudo systemctl reset-failed asrd.socket && {RESTART} asrd",
        ),
        (
            "asr-worker@0.service",
            {"Result": "start-limit-hit", "ActiveState": "failed"},
            "was started too often",
            f"sudo systemctl reset-failed asr-worker@0.service && {RESTART} asr-worker@0.socket",
        ),
        (
            "asr-worker@0.socket",
            {"LoadState": "masked", "FragmentPath": "/etc/systemd/system/asr-worker@0.socket"},
            "is masked",
            f"sudo systemctl unmask asr-worker@0.socket && {RESTART} asr-worker@0.socket",
        ),
        (
            "asr-worker@0.service",
            {"LoadState": "masked", "FragmentPath": "/run/systemd/system/asr-worker@.service"},
            "is masked",
            f"sudo systemctl unmask asr-worker@.service && {RESTART} asr-worker@0.socket",
        ),
        (
            "asrd.service",
            {"LoadState": "masked"},
            "is masked",
            f"sudo systemctl unmask asrd.service && {RESTART} asrd",
        ),
    ],
)
def test_unit_that_does_not_run(
    host: FakeHost, unit: str, change: dict[str, str], text: str, fix: str
) -> None:
    host.known[unit] |= change
    ((found, command),) = wrongs([*unit_checks.sockets(host), *unit_checks.services(host)])
    assert found.startswith(f"{unit} {text}")
    assert command == fix


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ActiveState": "failed", "StatusText": "cannot load: no"}, "has failed: cannot load: no"),
        (
            {"NRestarts": "17", "ExecMainStartTimestampMonotonic": str(1 << 62)},
            "was restarted 17 times",
        ),
    ],
)
def test_service_whose_log_has_the_reason(
    host: FakeHost, change: dict[str, str], text: str
) -> None:
    unit = "asr-worker@0.service"
    host.known[unit] |= change
    (found,) = (each for each in unit_checks.services(host) if each.verdict is Verdict.WRONG)
    assert found.text == f"{unit} {text}"
    assert (found.fix, found.see) == (None, f"journalctl -b -n 50 -u {unit}")


def test_service_that_was_restarted_often_and_runs_now_is_in_order(host: FakeHost) -> None:
    started = int((time.monotonic() - 20.1) * 1e6)
    host.known["asrd.service"] |= {
        "NRestarts": "17",
        "ExecMainStartTimestampMonotonic": str(started),
    }
    assert wrongs(unit_checks.services(host)) == []


def test_socket_that_fails_because_its_service_is_masked_is_not_reported(host: FakeHost) -> None:
    host.known["asr-worker@0.service"] |= {"LoadState": "masked"}
    host.known["asr-worker@0.socket"] |= {"ActiveState": "failed", "Result": "resources"}
    assert wrongs(unit_checks.sockets(host)) == []
    assert len(wrongs(unit_checks.services(host))) == 1


@pytest.mark.parametrize(
    ("unit", "fix"),
    [
        ("asrd.socket", f"sudo systemctl stop asrd.socket && {RESTART} asrd"),
        ("asr-worker@0.socket", f"{RESTART} asr-worker@0.socket"),
    ],
)
def test_socket_file_that_was_removed(host: FakeHost, tmp_path: Path, unit: str, fix: str) -> None:
    path = tmp_path / "gone.sock"
    host.known[unit]["Listen"] = f"127.0.0.1:10300 (Stream)\n{path} (Stream)"
    assert wrongs(unit_checks.sockets(host)) == [
        (f"{unit} has lost {path}: its file was removed", fix)
    ]
    path.touch()
    assert wrongs(unit_checks.sockets(host)) == []


def test_settings_of_a_worker_without_a_socket(host: FakeHost) -> None:
    file = host.config.with_name("worker-1.toml")
    file.write_text("model = 'demo'\n")
    host.known["asr-worker@1.socket"] = SOUND | {"ActiveState": "inactive"}
    text = f"asr-worker@1.socket is not active, so that {file} has no effect"
    assert wrongs(unit_checks.sockets(host)) == [(text, f"{ENABLE} asr-worker@1.socket")]


def test_no_worker_is_enabled(host: FakeHost) -> None:
    del host.known["asr-worker@0.socket"]
    ((_, fix),) = wrongs(unit_checks.sockets(host))
    assert fix == "sudo systemctl enable --now asr-worker@0.socket"


@pytest.mark.parametrize(
    ("state", "enabled", "listens", "fixes"),
    [
        ("inactive", "disabled", False, []),
        ("active", "enabled", True, []),
        ("inactive", "enabled", False, ["sudo systemctl restart asrd"]),
        ("failed", "enabled", False, ["sudo systemctl restart asrd"]),
    ],
)
def test_door_for_wyoming_clients(
    host: FakeHost, state: str, enabled: str, listens: bool, fixes: list[str]
) -> None:
    door = SOUND | {"ActiveState": state, "UnitFileState": enabled}
    host.known["asrd-wyoming.socket"] = door
    assert [fix for _, fix in wrongs(unit_checks.sockets(host))] == fixes
    texts = [found.text for found in unit_checks.sockets(host)]
    assert ("asrd-wyoming.socket listens" in texts) == listens


@pytest.mark.parametrize("systemd", [True, False])
def test_asrd_run_is_recognized_without_units(host: FakeHost, systemd: bool) -> None:
    host.without_units(systemd)
    host.workers = [WORKER | {"model": "demo"}]
    (found,) = unit_checks.sockets(host)
    assert found.verdict is Verdict.OK
    assert found.text.startswith(f"`asrd run` listens at {host.socket} (pid 4711)")
    assert wrongs(diagnosed(host)) == []
    assert not [found for found in diagnosed(host) if "systemctl" in str(found.fix)]


def test_neither_units_nor_an_asrd_run(host: FakeHost) -> None:
    host.without_units(systemd=True)
    host.workers = None
    host.socket.unlink()
    ((text, fix),) = wrongs(diagnosed(host))
    assert text.startswith("no systemd units are installed, and no `asrd run` answers")
    assert fix == "asrd run"
