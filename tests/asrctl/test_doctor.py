"""Each mistake that an admin makes, put to the doctor through a host that has it."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl import checks, doctor
from asrd.asrctl.checks import Finding, Verdict
from asrd.asrctl.host import Host
from asrd.demo import MODEL
from asrd.errors import ConnectionLost

SOUND = {
    "LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled",
    "Result": "success", "NRestarts": "0", "StatusText": "", "DevicePolicy": "closed",
    "DeviceAllow": "char-nvidia* rw", "PrivateDevices": "no",
}  # fmt: skip
NAMES = ["asrd.socket", "asrd-status.socket", "asr-worker@0.socket"]
NAMES += ["asrd.service", "asr-worker@0.service"]
WORKER = {"name": "0", "state": "ready", "reason": None, "model": "large-v3", "device": "cpu"}


class FakeHost(Host):
    """A sound machine, but for what a test changes."""

    def __init__(self, tmp_path: Path) -> None:
        self.config = tmp_path / "asrd.toml"
        self.socket = tmp_path / "asrd.sock"
        self.socket.touch()
        self.known: dict[str, dict[str, str]] | None = {name: dict(SOUND) for name in NAMES}
        self.workers: list[dict[str, Any]] | None = [dict(WORKER)]
        self.groups: set[str] = set()
        self.nodes: list[Path] = []
        self.free = 1 << 40

    def units(self, *patterns: str) -> dict[str, dict[str, str]] | None:
        if self.known is None:
            return None
        return {
            name: unit
            for name, unit in self.known.items()
            if any(Path(name).match(pattern) for pattern in patterns)
        }

    def status(self) -> dict[str, Any]:
        if self.workers is None:
            raise ConnectionLost("there is no daemon")
        return {"pid": 4711, "workers": self.workers}

    def user(self) -> str:
        return "ann"

    def in_group(self, name: str) -> bool:
        return False

    def member_of(self, name: str) -> bool:
        return name in self.groups

    def gpus(self) -> list[Path]:
        return self.nodes

    def free_bytes(self, path: Path) -> int:
        return self.free


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def wrongs(findings: Any) -> list[tuple[str, str | None]]:
    return [(found.text, found.mend) for found in findings if found.verdict is Verdict.WRONG]


def test_a_sound_machine_has_nothing_wrong(host: FakeHost) -> None:
    checks_without_models = [check for check in checks.CHECKS if check is not checks.models]
    findings = list(doctor.examine(host, checks_without_models))
    assert wrongs(findings) == []
    assert {found.subject for found in findings} >= {"settings", "sockets", "services", "workers"}


def test_a_wrong_key_is_told_with_file_and_line(host: FakeHost) -> None:
    host.config.write_text("[front]\nqueue_maximum = 3\n")
    ((text, mend),) = wrongs(checks.settings(host))
    assert text.startswith(f"{host.config}:2: unknown key")
    assert mend == f"sudoedit {host.config}"


@pytest.mark.parametrize(
    ("change", "text", "mend"),
    [
        ({"ActiveState": "inactive"}, "is off", "enable --now asrd.socket"),
        ({"LoadState": "not-found"}, "is not installed", "apt install asrd"),
        (
            {"ActiveState": "failed", "Result": "trigger-limit-hit"},
            "trigger-limit-hit",
            "reset-failed asrd.socket",
        ),
    ],
)
def test_a_socket_that_does_not_listen(
    host: FakeHost, change: dict[str, str], text: str, mend: str
) -> None:
    assert host.known is not None
    host.known["asrd.socket"] |= change
    ((told, command),) = wrongs(checks.sockets(host))
    assert text in told
    assert mend in str(command)


def test_no_worker_is_enabled(host: FakeHost) -> None:
    assert host.known is not None
    del host.known["asr-worker@0.socket"]
    ((_, mend),) = wrongs(checks.sockets(host))
    assert mend == "sudo systemctl enable --now asr-worker@0.socket"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"Result": "start-limit-hit", "ActiveState": "failed"}, "gave up on it"),
        ({"ActiveState": "failed", "StatusText": "cannot load: no"}, "failed: cannot load: no"),
        ({"NRestarts": "17"}, "restarted 17 times"),
    ],
)
def test_a_service_in_trouble(host: FakeHost, change: dict[str, str], text: str) -> None:
    assert host.known is not None
    host.known["asr-worker@0.service"] |= change
    ((told, mend),) = wrongs(checks.services(host))
    assert text in told
    assert "asr-worker@0.service" in str(mend)


def test_a_user_outside_of_the_group(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrd.asrctl.checks.os.access", lambda path, mode: False)
    assert wrongs(checks.permission(host))[0][1] == "sudo usermod -aG asr ann"
    host.groups.add("asr")
    assert wrongs(checks.permission(host))[0][1] == "newgrp asr"
    host.socket.unlink()
    assert "is missing" in wrongs(checks.permission(host))[0][0]


def test_a_failed_worker_is_told_with_its_reason(host: FakeHost) -> None:
    host.workers = [WORKER | {"state": "failed", "reason": "no such model"}]
    assert wrongs(checks.workers(host))[0][0] == "worker 0 is failed: no such model"
    host.workers = []
    assert wrongs(checks.workers(host))[0][0] == "the daemon has no worker"
    host.workers = None
    (unseen,) = checks.workers(host)
    assert unseen.verdict is Verdict.UNSEEN


def test_the_demo_model_is_no_mistake_but_mentioned(host: FakeHost) -> None:
    host.workers = [WORKER | {"model": "demo"}]
    *_, hint = checks.workers(host)
    assert hint.verdict is Verdict.OK
    assert "fetch-model" in str(hint.mend)


def test_a_model_that_the_worker_cannot_read(host: FakeHost, tmp_path: Path) -> None:
    model = tmp_path / "model"
    host.config.write_text(f'[worker]\nmodel = "{model}"\n')
    hidden = wrongs(checks.models(host))[0][0]
    assert "hidden from workers by their sandbox" in hidden


def test_a_model_in_a_closed_or_empty_directory(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_HIDDEN", ("/home",))
    monkeypatch.setattr(checks, "_open_to_all", lambda path: path.stat().st_mode & 0o005)
    model = tmp_path / "model"
    model.mkdir()
    for parent in [model, *model.parents][:-2]:
        # The test's own, and pytest's above it, which are closed to others.
        if parent.is_relative_to(tmp_path) or parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    host.config.write_text(f'[worker]\nmodel = "{model}"\n')
    assert "holds no CTranslate2 model" in wrongs(checks.models(host))[0][0]
    (model / "model.bin").touch()
    assert wrongs(checks.models(host)) == []
    model.chmod(0o700)
    assert wrongs(checks.models(host))[0][1] == f"sudo chmod a+rX {model}"


def test_cuda_is_wanted_but_there_is_no_gpu(host: FakeHost) -> None:
    host.config.write_text('[worker]\ndevice = "cuda"\n')
    assert "no /dev/nvidia0" in wrongs(checks.gpu(host))[0][0]


def test_a_gpu_out_of_reach(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "nvidia0"
    node.touch(0o600)
    host.nodes = [node]
    host.workers = None
    assert host.known is not None
    host.known["asr-worker@0.service"]["PrivateDevices"] = "yes"
    monkeypatch.setattr(checks, "CUBLAS", tmp_path / "libcublas.so.12")
    mends = [mend for _, mend in wrongs(checks.gpu(host))]
    assert mends == [
        "sudo nvidia-modprobe -u -c=0",
        f"sudo chmod a+rw {node}",
        "sudo apt install asrd-cuda",
        "sudo systemctl revert asr-worker@0.service",
    ]


@pytest.mark.parametrize(
    ("device", "configured", "wrong"),
    [("cuda", "auto", []), ("cpu", "auto", ["0"]), ("cpu", "cpu", []), ("cuda", "cuda", [])],
)
def test_a_gpu_is_there_and_the_worker_uses_it_or_not(
    host: FakeHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    configured: str,
    wrong: list[str],
) -> None:
    for name in ("nvidia0", "nvidia-uvm"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    host.nodes = [tmp_path / "nvidia0"]
    host.config.write_text(f"[worker]\ndevice = '{configured}'\n")
    host.workers = [{**WORKER, "device": device}]
    # Wherever it lies: a worker that runs on a GPU has it.
    present = tmp_path / "libcublas.so.12"
    monkeypatch.setattr(checks, "CUBLAS", present)
    if device == "cpu":
        present.touch()
    found = wrongs(checks.gpu(host))
    assert found == [
        (
            f"worker {name} uses the CPU although there is a GPU; its log says why",
            f"journalctl -b -u asr-worker@{name} -g 'using the CPU'",
        )
        for name in wrong
    ]


def test_a_full_disk(host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MODELS", tmp_path)
    host.free = 1 << 20
    assert "0.0 GiB are free" in wrongs(checks.disk(host))[0][0]


def without_units(host: FakeHost, systemd: bool) -> None:
    absent = SOUND | {"LoadState": "not-found", "ActiveState": "inactive"}
    host.known = {name: dict(absent) for name in NAMES[:2]} if systemd else None


@pytest.mark.parametrize("systemd", [True, False])
def test_an_asrd_run_is_known_where_no_units_are_installed(host: FakeHost, systemd: bool) -> None:
    without_units(host, systemd)
    host.workers = [WORKER | {"model": "demo"}]
    (found,) = checks.sockets(host)
    assert found.verdict is Verdict.OK
    assert found.text.startswith(f"`asrd run` listens at {host.socket} (pid 4711)")
    assert list(checks.services(host)) == []
    assert wrongs(doctor.examine(host)) == []
    assert not [found for found in doctor.examine(host) if "systemctl" in str(found.mend)]


@pytest.mark.parametrize("systemd", [True, False])
def test_neither_units_nor_an_asrd_run(host: FakeHost, systemd: bool) -> None:
    without_units(host, systemd)
    host.workers = None
    host.socket.unlink()
    ((text, mend),) = wrongs(doctor.examine(host, [checks.sockets, checks.permission]))
    assert text.startswith("no systemd units are installed, and no `asrd run` answers")
    assert mend == "asrd run"


def test_an_asrd_run_reads_models_where_its_sandbox_would_hide_them(
    host: FakeHost, tmp_path: Path
) -> None:
    without_units(host, systemd=False)
    host.config.write_text(f'[worker]\nmodel = "{MODEL}"\n')
    assert wrongs(checks.models(host)) == []
    host.config.write_text(f'[worker]\nmodel = "{tmp_path}"\n')
    ((text, mend),) = wrongs(checks.models(host))
    assert "has no model.bin" in text
    assert mend == f"ls -l {tmp_path}"


def test_a_failed_worker_of_an_asrd_run(host: FakeHost) -> None:
    without_units(host, systemd=False)
    host.workers = [WORKER | {"state": "failed", "reason": "no such model"}]
    assert wrongs(checks.workers(host)) == [
        ("worker 0 is failed: no such model", "asrctl status --crashes")
    ]


def test_a_systemctl_of_the_working_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\ntouch ran\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ".")
    assert Host().units("asrd.socket") is None
    assert not (tmp_path / "ran").exists()


def test_a_user_and_a_group_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4_242_424)
    nameless = Host()
    assert nameless.user() == "user 4242424"
    assert not nameless.member_of("asrd-no-such-group")
    assert not nameless.in_group("asrd-no-such-group")


def test_a_check_that_fails_is_unseen(host: FakeHost) -> None:
    def broken(host: Host) -> list[Finding]:
        raise PermissionError(13, "Permission denied", "/secret")

    (found,) = doctor.examine(host, [broken])
    assert (found.subject, found.verdict) == ("broken", Verdict.UNSEEN)


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.OK, 0), (Verdict.WRONG, 1)])
def test_the_exit_code_and_both_reports(
    verdict: Verdict,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = Finding("disk", verdict, "it is as it is", "sudo true")
    monkeypatch.setattr(doctor, "examine", lambda host: [found])
    assert doctor.run(argparse.Namespace(json=True, socket=None)) == code
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == verdict.value
    assert doctor.run(argparse.Namespace(json=False, socket=None)) == code
    said = capsys.readouterr().out
    label = "to change it" if verdict is Verdict.OK else "fix it with"
    assert f"{label}:  sudo true" in said
    assert said.endswith("nothing wrong\n" if code == 0 else "1 wrong\n")
