"""Caches, hubs and an official model of the tests' own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from asrd.engine.fetching import hub
from asrd.model_table import MODELS, OfficialModel
from tests.support.fetching import FILES, SHA256
from tests.support.hub import COMMIT, Hub, serve


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def a_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process uses, with the demo model as some/model."""
    with serve("some/model", FILES) as found:
        template = found.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        monkeypatch.setattr(hub, "_PAUSES", (0.01, 0.01))
        yield found


@pytest.fixture
def no_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def an_official(monkeypatch: pytest.MonkeyPatch) -> OfficialModel:
    """The demo model as the official model `tiny`, in two packages."""
    wheels = (("asrd-fake-part1==1.0", "fake1/data"), ("asrd-fake-part2==1.0", "fake2/data"))
    model = OfficialModel("some/model", COMMIT, 400_000, SHA256, wheels)
    monkeypatch.setitem(MODELS, "tiny", model)
    return model
