"""The socket and the recording of asrctl's tests."""

from pathlib import Path

import pytest

from tests.support.doctor import FakeHost


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The socket that asrctl uses."""
    path = tmp_path / "asrd.sock"
    monkeypatch.setenv("ASRD_SOCKET", str(path))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> str:
    return make_recording(tmp_path, "talk.wav")


def make_recording(directory: Path, name: str) -> str:
    path = directory / name
    path.write_bytes(name.encode())
    return str(path)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)
