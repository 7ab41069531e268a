"""`asrd fetch-model` against a hub on this machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from asrd.demo import MODEL
from asrd.engine import fetch_model
from asrd.errors import AsrdError
from tests.support.fake_daemon import PATIENCE
from tests.support.hub import serve

FILES = {path.name: path for path in (*MODEL.iterdir(), MODEL.parent / "README.md")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def python(code: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    # In a process of its own: the library reads its settings once.
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_ENDPOINT": endpoint, **env},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def fetch(name: str, endpoint: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from asrd.main import main; sys.exit(main(['fetch-model', {name!r}]))"
    return python(code, endpoint, **env)


def test_fetched_model_is_found_without_the_network(home: Path) -> None:
    with serve("some/model", FILES) as endpoint:
        done = fetch("some/model", endpoint)
    assert (done.returncode, done.stderr) == (0, "")
    path = Path(done.stdout.strip())
    assert path.is_relative_to(home)
    assert {entry.name for entry in path.iterdir()} == {entry.name for entry in MODEL.iterdir()}
    found = python("from asrd.engine.models import resolve; print(resolve('some/model'))", endpoint)
    assert found.stdout.strip() == str(path), found.stderr


def test_fetched_model_is_checked(home: Path) -> None:
    files = {name: path for name, path in FILES.items() if name != "model.bin"}
    with serve("some/model", files) as endpoint:
        done = fetch("some/model", endpoint)
    assert done.returncode == 1
    assert done.stderr.startswith("asrd: the model in ")
    assert "has no model.bin: a download or copy that was not finished" in done.stderr


def test_missing_repository_and_offline_mode_are_named(home: Path) -> None:
    with serve("some/model", FILES) as endpoint:
        done = fetch("some/other", endpoint)
        offline = fetch("some/model", endpoint, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "asrd: the model 'some/other' could not be fetched: the hub has no repository some/other\n"
    )
    assert offline.returncode == 1
    assert "HF_HUB_OFFLINE" in offline.stderr


def test_silent_hub_ends_the_wait(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", silent)
        monkeypatch.setattr(fetch_model, "_HUB_PATIENCE", 0.1)
        with pytest.raises(AsrdError, match=f"could not be fetched: {silent}: "):
            fetch_model.fetch_model("some/model")
