"""The programs that asrctl is compared with."""

from pathlib import Path

import pytest

from tests.support import peers


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with their packages."""
    return peers.directory(tmp_path_factory.mktemp("peers"))
