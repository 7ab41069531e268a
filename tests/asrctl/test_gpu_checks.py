"""The doctor's checks of GPUs."""

from pathlib import Path

import pytest

from asrd.asrctl import gpu_checks
from asrd.asrctl.finding import Verdict
from tests.support.doctor import WORKER, FakeHost, wrongs


def test_cuda_is_configured_without_a_gpu(host: FakeHost) -> None:
    host.set_worker(device="cuda")
    assert "no /dev/nvidia0" in wrongs(gpu_checks.gpu(host))[0][0]


def test_gpu_that_the_worker_cannot_use(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "nvidia0"
    node.touch(0o600)
    host.nodes = [node]
    host.workers = None
    host.known["asr-worker@0.service"]["PrivateDevices"] = "yes"
    monkeypatch.setattr(gpu_checks, "CUBLAS", tmp_path / "libcublas.so.12")
    assert [fix for _, fix in wrongs(gpu_checks.gpu(host))] == [
        "sudo nvidia-modprobe -u -c=0",
        f"sudo chmod a+rw {node}",
        "sudo apt install asrd-cuda",
        "sudo systemctl revert asr-worker@0.service",
    ]
    host.set_worker(device="cpu")
    assert wrongs(gpu_checks.gpu(host)) == []


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
    (found,) = (each for each in gpu_checks.gpu(host) if "NVIDIA driver" in each.text)
    assert found.verdict is verdict
    assert words in found.text
    host.set_worker(device="cpu")
    assert not any("driver" in each.text for each in gpu_checks.gpu(host))


def test_worker_that_uses_the_cpu_although_there_is_a_gpu(
    host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia-uvm", "libcublas.so.12"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    host.nodes = [tmp_path / "nvidia0"]
    cublas = tmp_path / "libcublas.so.12"
    monkeypatch.setattr(gpu_checks, "CUBLAS", cublas)
    (found,) = (each for each in gpu_checks.gpu(host) if each.verdict is Verdict.WRONG)
    assert found.text.startswith("worker 0 uses the CPU although there is a GPU")
    assert found.see == "journalctl -b -u asr-worker@0 -g 'using the CPU'"
    # Nothing is wrong if the settings of one worker request the CPU.
    host.config.with_name("worker-1.toml").write_text("device = 'cpu'\n")
    assert wrongs(gpu_checks.gpu(host)) == []
    # A worker that runs on a GPU has cuBLAS, wherever the file is.
    cublas.unlink()
    host.workers = [{**WORKER, "device": "cuda"}]
    assert wrongs(gpu_checks.gpu(host)) == []
