"""The program, once for all tests of a file; each test plays the daemon behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http import HttpProgram


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


@pytest.fixture
def daemon(directory: Path) -> Path:
    """The path of the daemon's socket."""
    return directory / "asrd.sock"


@pytest.fixture(scope="module")
def program(directory: Path) -> Iterator[HttpProgram]:
    settings = "max_upload_bytes = 1_048_576\nuploads_max_bytes = 2_097_152\ndrain_seconds = 0"
    with HttpProgram(directory, str(directory / "asrd.sock"), settings) as running:
        yield running
