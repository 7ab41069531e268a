"""`asrd check`, on files of the test's own and a machine without units."""

import os
from pathlib import Path

import pytest

from asrd import main
from asrd.asrctl import restart_check
from asrd.asrctl.host import Host
from asrd.demo import MODEL
from asrd.snapshot import Snapshot, read_snapshot
from tests.support.doctor import FakeHost, wrongs
from tests.support.paths import ROOT


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Host, "units", lambda self, *patterns: {})
    monkeypatch.setattr(Host, "gpus", lambda self: [])
    return tmp_path / "asrd.toml"


def check(config: Path) -> int:
    return main.main(["check", "--config", str(config)])


def test_settings_and_model_in_order(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[front]\nqueue_max = 3\n[worker]\nmodel = 'demo'\n")
    assert check(config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ok     settings: {config} and the workers' files are in order"
    assert any(line.startswith("ok     models: configured for worker 0: demo") for line in lines)


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("asrd.toml", "[front]\nqueue_mx = 3\n", "settings: {}:2: unknown key 'queue_mx'"),
        ("asrd.toml", "[http]\nrequests_max = 0\n", "http: {}:2: requests_max: "),
        ("worker-1.toml", "beam_size = 'x'\n", "settings: {}:1: beam_size: "),
        ("asrd.toml", "[worker]\nmodel = '/srv/none'\n", "models: configured for worker 0: "),
    ],
)
def test_each_mistake_is_one_line_and_status_1(
    config: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, line: str
) -> None:
    config.write_text("")
    wrong = config.with_name(file)
    wrong.write_text(text)
    assert check(config) == 1
    found = [each for each in capsys.readouterr().out.splitlines() if each.startswith("WRONG")]
    assert len(found) == 1
    assert found[0].startswith(f"WRONG  {line.format(wrong)}")


def test_model_of_the_settings_counts_and_not_the_one_that_runs(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(self: Host) -> Snapshot:
        worker = {"name": "0", "state": "ready", "model": str(MODEL)}
        return read_snapshot({"state": "ok", "workers": [worker]})

    monkeypatch.setattr(Host, "status", status)
    config.write_text("[worker]\nmodel = '/srv/none'\n")
    assert check(config) == 1
    assert "WRONG  models: configured for worker 0: " in capsys.readouterr().out


def test_closed_settings_are_unseen_and_not_wrong(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("[front]\nqueue_mx = 3\n")
    # Root may read every file.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != config)
    monkeypatch.setattr(Host, "worker_names", lambda self: [])
    assert check(config) == 0
    output = capsys.readouterr().out
    assert f"unseen settings: {config} is closed to " in output
    assert output.endswith("(try as root: sudo asrd check)\n")


def test_fault_of_the_present_is_no_reason_against_a_restart(
    host: FakeHost, tmp_path: Path
) -> None:
    """A front whose socket was lost or stopped, and a worker on the CPU beside a GPU."""
    host.known["asrd.socket"]["Listen"] = f"{tmp_path / 'gone.sock'} (Stream)"
    host.known["asrd-status.socket"]["ActiveState"] = "inactive"
    assert wrongs(restart_check.sockets(host)) == []
    for name in ("nvidia0", "nvidia-uvm"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    host.nodes = [tmp_path / "nvidia0"]
    host.workers = [{"name": "0", "state": "ready", "device": "cpu"}]
    assert not any("uses the CPU" in text for text, _ in wrongs(restart_check.gpu(host)))


@pytest.mark.parametrize(
    "change", [{"LoadState": "masked"}, {"LoadState": "not-found"}, {"ActiveState": "failed"}]
)
def test_socket_that_cannot_be_started_is_wrong(host: FakeHost, change: dict[str, str]) -> None:
    host.known["asrd.socket"] |= change
    ((text, _),) = wrongs(restart_check.sockets(host))
    assert text.startswith("asrd.socket ")


def test_files_of_variables_are_not_read_as_the_page_says(config: Path) -> None:
    config.write_text("[worker]\nmodel = 'demo'\n")
    config.with_name("worker-0.env").write_text("ASRD_WORKER_DEVICE=abc\n")
    assert check(config) == 0
    page = " ".join((ROOT / "docs" / "restarts.md").read_text().split())
    assert "each `worker-N.toml`, but no `worker-N.env` and no variable of a unit" in page
