"""Each mistake of an admin, shown to the doctor by a host that has it."""

from pathlib import Path

import pytest

from asrd.asrctl import checks, doctor
from asrd.asrctl.finding import Verdict
from asrd.asrctl.gpu_checks import gpu
from asrd.asrctl.model_checks import models
from tests.support.doctor import WORKER, FakeHost, shown, wrongs


def test_sound_machine_has_nothing_wrong(host: FakeHost) -> None:
    host.set_worker(model="demo")
    host.known["asr-worker@0.service"]["NRestarts"] = "4"
    host.workers = [WORKER | {"compute_type": "int8", "cpu_threads": 2, "cores": 2}]
    results = list(doctor.examine(host))
    assert wrongs(found for _, found in results) == []
    subjects = {subject for subject, _ in results}
    assert subjects >= {"settings", "sockets", "services", "workers", "models", "speed"}


def test_wrong_key_is_reported_with_file_and_line(host: FakeHost) -> None:
    host.config.write_text("[front]\nqueue_maximum = 3\n[worker]\ndevice = 'tpu'\n")
    (front, worker) = wrongs(checks.settings(host))
    assert front[0].startswith(f"{host.config}:2: unknown key")
    assert worker[0].startswith(f"{host.config}:4: device: must be one of")
    assert front[1] == worker[1] == f"sudoedit {host.config}"
    assert list(models(host)) == []
    assert wrongs(gpu(host)) == []


def test_mistake_in_a_variable_has_no_file_to_edit(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASRD_FRONT_QUEUE_MAX", "abc")
    ((text, fix),) = wrongs(checks.settings(host))
    assert text.startswith("ASRD_FRONT_QUEUE_MAX='abc': ")
    assert fix is None


def test_paths_in_commands_are_quoted(host: FakeHost, tmp_path: Path) -> None:
    folder = tmp_path / "my settings"
    folder.mkdir(0o755)
    host.config = folder / "asrd.toml"
    host.config.write_text("queue = 1\n")
    assert wrongs(checks.settings(host))[0][1] == f"sudoedit '{host.config}'"
    host.set_worker(model="/home/ann/my model")
    fix = f"sudo asrd add-model '/home/ann/my model' && sudoedit '{host.config}'"
    assert wrongs(models(host))[0][1] == fix
    host.config.chmod(0o033)
    try:
        assert wrongs(checks.settings(host))[0][1] == f"sudo chmod a+rX '{host.config}'"
    finally:
        host.config.chmod(0o644)


def test_user_who_may_not_connect(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrd.asrctl.checks.os.access", lambda path, mode: False)
    assert wrongs(checks.permission(host))[0][1] == "sudo usermod -aG asr ann"
    host.groups.add("asr")
    assert wrongs(checks.permission(host))[0][1] == "newgrp asr"
    host.without_units(systemd=False)
    assert "belongs to another user's" in wrongs(checks.permission(host))[0][0]


def test_failed_worker_is_reported_with_its_reason(host: FakeHost) -> None:
    host.workers = [WORKER | {"state": "failed", "reason": "no such model"}]
    problem = "worker 0 is failed: no such model"
    assert shown(checks.workers(host)) == [(problem, "journalctl -b -n 50 -u asr-worker@0")]
    host.without_units(systemd=False)
    assert shown(checks.workers(host)) == [(problem, "asrctl status --crashes")]
    host.workers = None
    (found,) = checks.workers(host)
    assert found.verdict is Verdict.UNSEEN


def test_daemon_without_a_worker(host: FakeHost) -> None:
    """If it has a socket, that is what is wrong."""
    host.workers = []
    assert wrongs(checks.workers(host)) == [("the daemon has no worker", None)]
    del host.known["asr-worker@0.socket"]
    ((_, fix),) = wrongs(checks.workers(host))
    assert fix == "sudo systemctl enable --now asr-worker@0.socket"
    host.without_units(systemd=False)
    assert wrongs(checks.workers(host)) == [("the daemon has no worker", None)]


def test_front_that_refuses_is_no_daemon_without_workers(host: FakeHost) -> None:
    host.workers = []
    host.problems = [f"the settings are wrong: {host.config}:4: unknown key 'queue_mx'"]
    assert wrongs(checks.workers(host)) == [(host.problems[0], f"sudoedit {host.config}")]


def test_silent_worker_is_wrong_and_a_loading_one_is_not(host: FakeHost) -> None:
    host.problems = ["worker 0 has given no sign of life for 2.4 s"]
    assert shown(checks.workers(host)) == [(host.problems[0], "asrctl status --crashes")]
    host.problems = ["worker 0 is loading for 12 s", "the queue is full (1 of 1)"]
    assert wrongs(checks.workers(host)) == []


def test_missing_settings_file_is_not_called_in_order(host: FakeHost) -> None:
    (found,) = checks.settings(host)
    assert found.text == f"there is no {host.config}, so the defaults apply"
    host.set_worker(model="demo")
    (found,) = checks.settings(host)
    assert found.text.endswith("are in order")


def test_demo_model_is_mentioned_but_not_wrong(host: FakeHost) -> None:
    host.workers = [WORKER | {"model": "demo"}]
    *_, hint = checks.workers(host)
    assert hint.verdict is Verdict.OK
    assert "fetch-model" in str(hint.fix)


@pytest.mark.parametrize("name", ["base", "fast"])
def test_default_model_that_no_worker_has(host: FakeHost, name: str) -> None:
    assert list(checks.default_model(host)) == []
    host.config.write_text(
        f"[front]\ndefault_model = '{name}'\n[front.model_aliases]\nFast = 'base'\n"
    )
    ((text, fix),) = wrongs(checks.default_model(host))
    assert text.startswith("no worker has base, so requests without a model fail")
    assert text.endswith("there is: large-v3") and fix == f"sudoedit {host.config}"
    # One that has not loaded yet may have it.
    host.workers = [WORKER, WORKER | {"name": "1", "model": None}]
    assert list(checks.default_model(host)) == []
    host.workers = [WORKER, WORKER | {"name": "1", "model": "/srv/faster-whisper-base"}]
    (found,) = checks.default_model(host)
    assert found.verdict is Verdict.OK


@pytest.mark.parametrize(
    ("room", "text", "see"),
    [
        ((1 << 20, 1 << 20), "1 MiB are free under ", "sudo du -xh --max-depth=2 "),
        ((1 << 20, None), "1 MiB are free under ", "sudo du -xh --max-depth=2 "),
        ((1 << 30, 99), "99 more files fit under ", "sudo du -xh --max-depth=2 "),
        ((1 << 30, 100), "", ""),
        ((1 << 30, None), "", ""),
    ],
)
def test_full_disk(
    host: FakeHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    room: tuple[int, int | None],
    text: str,
    see: str,
) -> None:
    monkeypatch.setattr(checks, "_FREE", {tmp_path: 1 << 30, tmp_path / "missing": 1 << 30})
    host.room = room
    found = shown(checks.disk(host))
    inodes = " --inodes" * text.startswith("99")
    assert found == ([(f"{text}{tmp_path}", f"{see}{tmp_path}{inodes}")] if text else [])


@pytest.mark.parametrize("name", ["asrd.toml", "worker-1.toml"])
def test_settings_that_the_daemon_cannot_read(host: FakeHost, name: str) -> None:
    host.set_worker(model="demo")
    file = host.config.with_name(name)
    file.write_text("")
    file.chmod(0o033)
    try:
        found = dict(wrongs(checks.settings(host)))
        assert set(found.values()) == {f"sudo chmod a+rX {file}"}
        assert f"the workers can't read {file}" in found
        assert ("the front can't read " + str(file) in found) == (name == "asrd.toml")
        # An `asrd run` has the rights of its user.
        host.without_units(systemd=False)
        file.chmod(0o433)
        assert wrongs(checks.settings(host)) == []
    finally:
        file.chmod(0o644)
