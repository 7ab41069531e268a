"""Three hosts with real weights for all tests of a file. These tests fail without HAProxy, Redis,
weights or speech, and never skip."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import Balancer, Host, three_hosts
from tests.support.real import speech, weights
from tests.support.sounds import s16, wav


@pytest.fixture(scope="session")
def model() -> Path:
    return weights.directory("tiny.en")


@pytest.fixture(scope="session")
def clips() -> dict[str, speech.Clip]:
    return speech.clips()


@pytest.fixture(scope="module")
def hosts(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    with three_hosts(tmp_path_factory.mktemp("h"), model) as running:
        yield running


@pytest.fixture
def balancer(
    hosts: dict[str, Host], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    with Balancer(tmp_path_factory.mktemp("b"), hosts) as running:
        yield running


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seconds of work."""
    path = tmp_path_factory.mktemp("a") / "long.wav"
    samples, _ = speech.joined(speech.sentences(), 180)
    path.write_bytes(wav(s16(samples).tobytes()))
    return path
