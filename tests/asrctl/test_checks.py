"""Each mistake of an admin, shown to the doctor by a host that has it."""

from pathlib import Path
from typing import Any

import pytest

from asrd.asrctl import checks, doctor
from asrd.asrctl.checks import Finding, Verdict
from asrd.asrctl.host import Host
from asrd.demo import MODEL
from asrd.errors import ConnectionLost
from asrd.snapshot import Snapshot, read_snapshot

SOUND = {
    "LoadState": "loaded", "ActiveState": "active", "Result": "success", "NRestarts": "0",
    "StatusText": "", "DevicePolicy": "closed", "DeviceAllow": "char-nvidia* rw",
    "PrivateDevices": "no",
}  # fmt: skip
NAMES = ["asrd.socket", "asrd-status.socket", "asr-worker@0.socket"]
NAMES += ["asrd.service", "asr-worker@0.service"]
WORKER = {"name": "0", "state": "ready", "model": "large-v3", "device": "cpu"}


class FakeHost(Host):
    """A sound machine, except for the changes of a test."""

    def __init__(self, tmp_path: Path) -> None:
        self.config = tmp_path / "asrd.toml"
        self.socket = tmp_path / "asrd.sock"
        self.socket.touch()
        self.known = {name: dict(SOUND) for name in NAMES}
        self.workers: list[dict[str, Any]] | None = [dict(WORKER)]
        self.problems: list[str] = []
        self.groups: set[str] = set()
        self.nodes: list[Path] = []
        self.driver = "570.86.10"
        self.free = 1 << 40

    def units(self, *patterns: str) -> dict[str, dict[str, str]]:
        return {
            name: unit
            for name, unit in self.known.items()
            if any(Path(name).match(pattern) for pattern in patterns)
        }

    def status(self) -> Snapshot:
        if self.workers is None:
            raise ConnectionLost("there is no daemon")
        data = {"state": "ok", "pid": 4711, "workers": self.workers, "problems": self.problems}
        return read_snapshot(data)

    def user(self) -> str:
        return "ann"

    def in_group(self, name: str) -> bool:
        return False

    def member_of(self, name: str) -> bool:
        return name in self.groups

    def gpus(self) -> list[Path]:
        return self.nodes

    def nvidia_driver(self) -> str:
        return self.driver

    def free_bytes(self, path: Path) -> int:
        return self.free

    def set_worker(self, **settings: str) -> None:
        lines = [f"{key} = '{value}'\n" for key, value in settings.items()]
        self.config.write_text("[worker]\n" + "".join(lines))

    def without_units(self, systemd: bool) -> None:
        absent = SOUND | {"LoadState": "not-found", "ActiveState": "inactive"}
        self.known = {name: dict(absent) for name in NAMES[:2]} if systemd else {}


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def wrongs(findings: Any) -> list[tuple[str, str | None]]:
    return [(found.text, found.fix) for found in findings if found.verdict is Verdict.WRONG]


def diagnosed(host: Host) -> list[Finding]:
    return [found for _, found in doctor.examine(host)]


def test_sound_machine_has_nothing_wrong(host: FakeHost) -> None:
    host.set_worker(model="demo")
    host.known["asr-worker@0.service"]["NRestarts"] = "4"
    results = list(doctor.examine(host))
    assert wrongs(found for _, found in results) == []
    subjects = {subject for subject, _ in results}
    assert subjects >= {"settings", "sockets", "services", "workers", "models"}


def test_wrong_key_is_reported_with_file_and_line(host: FakeHost) -> None:
    host.config.write_text("[front]\nqueue_maximum = 3\n[worker]\ndevice = 'tpu'\n")
    (front, worker) = wrongs(checks.settings(host))
    assert front[0].startswith(f"{host.config}:2: unknown key")
    assert worker[0].startswith(f"{host.config}:4: device: must be one of")
    assert front[1] == worker[1] == f"sudoedit {host.config}"
    assert list(checks.models(host)) == []
    assert wrongs(checks.gpu(host)) == []


@pytest.mark.parametrize(
    ("unit", "change", "text", "fix"),
    [
        ("asrd.socket", {"ActiveState": "inactive"}, "is not active", "enable --now asrd.socket"),
        ("asrd.socket", {"LoadState": "not-found"}, "is not installed", "apt install asrd"),
        (
            "asrd.socket",
            {"ActiveState": "failed", "Result": "trigger-limit-hit"},
            "has failed (trigger-limit-hit)",
            "restart asrd.socket",
        ),
        (
            "asr-worker@0.service",
            {"Result": "start-limit-hit", "ActiveState": "failed"},
            "was started too often",
            "restart asr-worker@0.service",
        ),
        (
            "asr-worker@0.service",
            {"ActiveState": "failed", "StatusText": "cannot load: no"},
            "has failed: cannot load: no",
            "-u asr-worker@0.service",
        ),
        (
            "asr-worker@0.service",
            {"NRestarts": "17"},
            "was restarted 17 times",
            "-u asr-worker@0.service",
        ),
    ],
)
def test_unit_that_does_not_run(
    host: FakeHost, unit: str, change: dict[str, str], text: str, fix: str
) -> None:
    host.known[unit] |= change
    ((found, command),) = wrongs([*checks.sockets(host), *checks.services(host)])
    assert found.startswith(f"{unit} {text}")
    assert str(command).endswith(fix)


def test_no_worker_is_enabled(host: FakeHost) -> None:
    del host.known["asr-worker@0.socket"]
    ((_, fix),) = wrongs(checks.sockets(host))
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
    assert [fix for _, fix in wrongs(checks.sockets(host))] == fixes
    texts = [found.text for found in checks.sockets(host)]
    assert ("asrd-wyoming.socket listens" in texts) == listens


def test_user_who_may_not_connect(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrd.asrctl.checks.os.access", lambda path, mode: False)
    assert wrongs(checks.permission(host))[0][1] == "sudo usermod -aG asr ann"
    host.groups.add("asr")
    assert wrongs(checks.permission(host))[0][1] == "newgrp asr"
    host.without_units(systemd=False)
    assert "belongs to another user's" in wrongs(checks.permission(host))[0][0]


def test_socket_file_that_was_removed(host: FakeHost) -> None:
    host.socket.unlink()
    assert "is missing" in wrongs(checks.permission(host))[0][0]


def test_failed_worker_is_reported_with_its_reason(host: FakeHost) -> None:
    host.workers = [WORKER | {"state": "failed", "reason": "no such model"}]
    problem = "worker 0 is failed: no such model"
    assert wrongs(checks.workers(host)) == [(problem, "journalctl -b -n 50 -u asr-worker@0")]
    host.without_units(systemd=False)
    assert wrongs(checks.workers(host)) == [(problem, "asrctl status --crashes")]
    host.workers = []
    assert wrongs(checks.workers(host))[0][0] == "the daemon has no worker"
    host.workers = None
    (found,) = checks.workers(host)
    assert found.verdict is Verdict.UNSEEN


def test_silent_worker_is_wrong_and_a_loading_one_is_not(host: FakeHost) -> None:
    host.problems = ["worker 0 has given no sign of life for 2.4 s"]
    assert wrongs(checks.workers(host)) == [(host.problems[0], "asrctl status --crashes")]
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


def test_model_that_the_worker_cannot_read(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    host.set_worker(model=str(model))
    assert "hidden from workers by their sandbox" in wrongs(checks.models(host))[0][0]
    monkeypatch.setattr(checks, "_HIDDEN", ("/home",))
    for parent in [model, *model.parents][:-2]:
        # The test's directories, and those of pytest above them, which are closed to others.
        if parent.is_relative_to(tmp_path) or parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    assert "holds no CTranslate2 model" in wrongs(checks.models(host))[0][0]
    (model / "model.bin").touch()
    assert wrongs(checks.models(host)) == []
    model.chmod(0o700)
    assert wrongs(checks.models(host))[0][1] == f"sudo chmod a+rX {model}"


def test_model_name_that_is_not_in_the_cache(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(host.config.parent))
    host.set_worker(model="no-such-model")
    assert wrongs(checks.models(host))[0][1] == "sudo asrd fetch-model no-such-model"
    host.without_units(systemd=False)
    assert wrongs(checks.models(host))[0][1] == "asrd fetch-model no-such-model"


def test_asrd_run_reads_models_that_a_sandbox_would_hide(host: FakeHost, tmp_path: Path) -> None:
    host.without_units(systemd=False)
    host.set_worker(model=str(MODEL))
    assert wrongs(checks.models(host)) == []
    host.set_worker(model=str(tmp_path))
    ((text, fix),) = wrongs(checks.models(host))
    assert "has no model.bin" in text
    assert fix == f"ls -l {tmp_path}"


def test_cuda_is_configured_without_a_gpu(host: FakeHost) -> None:
    host.set_worker(device="cuda")
    assert "no /dev/nvidia0" in wrongs(checks.gpu(host))[0][0]


def test_gpu_that_the_worker_cannot_use(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "nvidia0"
    node.touch(0o600)
    host.nodes = [node]
    host.workers = None
    host.known["asr-worker@0.service"]["PrivateDevices"] = "yes"
    monkeypatch.setattr(checks, "CUBLAS", tmp_path / "libcublas.so.12")
    assert [fix for _, fix in wrongs(checks.gpu(host))] == [
        "sudo nvidia-modprobe -u -c=0",
        f"sudo chmod a+rw {node}",
        "sudo apt install asrd-cuda",
        "sudo systemctl revert asr-worker@0.service",
    ]
    host.set_worker(device="cpu")
    assert wrongs(checks.gpu(host)) == []


@pytest.mark.parametrize(
    ("version", "verdict", "words"),
    [
        ("550.54.15", Verdict.WRONG, "is 550.54.15, and R570 or newer is needed"),
        ("570.86.10", Verdict.OK, "is 570.86.10"),
        ("unknown", Verdict.UNSEEN, "can't be read"),
    ],
)
def test_age_of_the_driver(
    host: FakeHost, tmp_path: Path, version: str, verdict: Verdict, words: str
) -> None:
    host.nodes, host.driver = [tmp_path / "nvidia0"], version
    (found,) = (each for each in checks.gpu(host) if "NVIDIA driver" in each.text)
    assert found.verdict is verdict
    assert words in found.text
    host.set_worker(device="cpu")
    assert not any("driver" in each.text for each in checks.gpu(host))


def test_worker_that_uses_the_cpu_although_there_is_a_gpu(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia-uvm", "libcublas.so.12"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    host.nodes = [tmp_path / "nvidia0"]
    cublas = tmp_path / "libcublas.so.12"
    monkeypatch.setattr(checks, "CUBLAS", cublas)
    ((text, fix),) = wrongs(checks.gpu(host))
    assert text.startswith("worker 0 uses the CPU although there is a GPU")
    assert fix == "journalctl -b -u asr-worker@0 -g 'using the CPU'"
    # Nothing is wrong if the settings of one worker request the CPU.
    host.config.with_name("worker-1.toml").write_text("device = 'cpu'\n")
    assert wrongs(checks.gpu(host)) == []
    # A worker that runs on a GPU has cuBLAS, wherever the file is.
    cublas.unlink()
    host.workers = [{**WORKER, "device": "cuda"}]
    assert wrongs(checks.gpu(host)) == []


def test_full_disk(host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MODELS", tmp_path)
    host.free = 1 << 20
    assert "0.0 GiB are free" in wrongs(checks.disk(host))[0][0]


@pytest.mark.parametrize("systemd", [True, False])
def test_asrd_run_is_recognized_without_units(host: FakeHost, systemd: bool) -> None:
    host.without_units(systemd)
    host.workers = [WORKER | {"model": "demo"}]
    (found,) = checks.sockets(host)
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
