"""The doctor's checks of models."""

import os
import shutil
from pathlib import Path

import pytest

from asrd.asrctl import model_checks
from asrd.asrctl.access import Reader
from asrd.asrctl.finding import Verdict
from asrd.demo import MODEL
from tests.support.doctor import FakeHost, wrongs


@pytest.fixture
def model(host: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model of worker 0, a copy of the demo's."""
    monkeypatch.setattr(model_checks, "_HIDDEN", ("/home",))
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    for path in (model, *model.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    host.set_worker(model=str(model))
    return model


def test_model_that_is_right(host: FakeHost, model: Path) -> None:
    (found,) = model_checks.models(host)
    assert (found.verdict, found.text) == (
        Verdict.OK,
        f"configured for worker 0: {model} is complete",
    )


def test_model_that_the_sandbox_hides(host: FakeHost) -> None:
    host.set_worker(model="/home/ann/small")
    ((text, fix),) = wrongs(model_checks.models(host))
    assert "hidden from workers by their sandbox" in text
    assert fix == f"sudo asrd add-model /home/ann/small && sudoedit {host.config}"
    file = host.config.with_name("worker-0.toml")
    file.write_text("model = '/home/ann/small'\n")
    assert str(wrongs(model_checks.models(host))[0][1]).endswith(f"sudoedit {file}")
    host.set_worker(model="/homes/small")
    file.unlink()
    assert "hidden" not in wrongs(model_checks.models(host))[0][0]


@pytest.mark.parametrize(("name", "mode"), [(".", 0o055), ("model.bin", 0o000)])
def test_files_that_the_worker_cannot_read(
    host: FakeHost, model: Path, name: str, mode: int
) -> None:
    closed = model / name
    closed.chmod(mode)
    try:
        ((text, fix),) = wrongs(model_checks.models(host))
        assert text.endswith(f"the workers can't read {closed}")
        assert fix == f"sudo chmod a+rX {closed}"
    finally:
        closed.chmod(0o755)


def test_directory_of_the_workers_group_is_open(host: FakeHost, model: Path) -> None:
    """Mode 0750: others need not read it."""
    for path in (model, *model.iterdir()):
        path.chmod(0o750 if path.is_dir() else 0o640)
    host.worker = Reader("the workers", host.worker.uid, frozenset({model.stat().st_gid}))
    assert wrongs(model_checks.models(host)) == []


def test_links_of_the_cache_are_followed(host: FakeHost, model: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "1234"
    blob.parent.mkdir()
    (model / "model.bin").rename(blob)
    (model / "model.bin").symlink_to(blob)
    assert wrongs(model_checks.models(host)) == []
    blob.parent.chmod(0o055)
    try:
        assert wrongs(model_checks.models(host))[0][1] == f"sudo chmod a+rX {blob.parent}"
    finally:
        blob.parent.chmod(0o755)


def test_model_that_is_cut_off(host: FakeHost, model: Path) -> None:
    os.truncate(model / "model.bin", 100_000)
    (found,) = model_checks.models(host)
    assert found.verdict is Verdict.WRONG
    assert "it is cut off after 100,000 bytes" in found.text
    assert (found.fix, found.see) == (None, f"ls -l {model}")


def test_model_that_is_missing(host: FakeHost, model: Path) -> None:
    host.set_worker(model=str(model / "none"))
    (found,) = model_checks.models(host)
    assert found.verdict is Verdict.WRONG
    assert (found.fix, found.see) == (None, f"ls -ld {model / 'none'}")


def test_model_name_that_is_not_in_the_cache(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(host.config.parent))
    host.set_worker(model="no-such-model")
    assert wrongs(model_checks.models(host))[0][1] == "sudo asrd fetch-model no-such-model"
    host.without_units(systemd=False)
    host.workers = None
    assert wrongs(model_checks.models(host))[0][1] == "asrd fetch-model no-such-model"


def test_asrd_run_is_asked_for_the_model_that_it_runs(host: FakeHost, tmp_path: Path) -> None:
    host.without_units(systemd=False)
    # As the settings are; the flag --model has another one.
    host.set_worker(model=str(tmp_path / "none"))
    host.workers = [{"name": "0", "state": "ready", "model": str(MODEL)}]
    assert [found.text for found in model_checks.models(host)] == [
        f"of worker 0: {MODEL} is complete"
    ]
    host.workers = None
    ((text, _),) = wrongs(model_checks.models(host))
    assert text.startswith("configured for worker 0: ")
