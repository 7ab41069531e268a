from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the daemon's socket."""
    return tmp_path / "asrd.sock"
