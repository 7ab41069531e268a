"""`asrd add-model`: models that are copied to where a name finds them."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from asrd.demo import MODEL
from asrd.engine import models
from asrd.engine.add_model import add_model
from asrd.errors import AsrdError
from asrd.main import main
from tests.support.fetching import NAMES, names


@pytest.fixture
def added(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of added models; nothing else has any."""
    monkeypatch.setenv("ASRD_MODELS", str(home / "models"))
    return home / "models"


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """A model as it comes from another machine, with its rights."""
    stick = tmp_path / "stick" / "danish"
    shutil.copytree(MODEL, stick)
    for path in stick.iterdir():
        path.chmod(0o600)
    stick.chmod(0o700)
    return stick


def refusal(origin: Path, name: str | None = None) -> str:
    with pytest.raises(AsrdError) as caught:
        add_model(origin, name)
    return str(caught.value)


def test_added_model_is_found_by_its_name_and_readable_by_all(
    added: Path, stick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.umask(0o077 if os.geteuid() == 0 else 0o022)
    try:
        assert main(["add-model", str(stick)]) == 0
    finally:
        os.umask(before)
    said = capsys.readouterr()
    assert said.out == f"{added / 'danish'}\n"
    assert said.err.endswith('asrd: workers find it as: model = "danish"\n')
    assert models.resolve("danish") == added / "danish"
    assert names(added / "danish") == {*NAMES, "SHA256SUMS"}
    modes = {path.name: path.stat().st_mode & 0o777 for path in (added / "danish").iterdir()}
    assert set(modes.values()) == {0o644}
    assert (added / "danish").stat().st_mode & 0o777 == 0o755
    assert names(added) == {"danish"}


def test_archive_is_added_under_another_name(added: Path, stick: Path) -> None:
    with tarfile.open(stick.with_suffix(".tar.gz"), "w:gz") as archive:
        archive.add(stick, "somewhere/deep")
    assert add_model(stick.with_suffix(".tar.gz")) == added / "danish"
    assert add_model(stick.with_suffix(".tar.gz"), "da-2") == added / "da-2"
    text = refusal(stick)
    assert text.startswith(f"{added}/danish exists already: `rm -r {added}/danish` removes it")


@pytest.mark.usefixtures("an_official")
def test_official_model_gets_its_official_name_and_must_be_the_official_one(
    added: Path, stick: Path
) -> None:
    assert add_model(stick, "faster-whisper-tiny") == added / "tiny"
    for name in ("tiny", "Tiny", "faster-whisper-tiny", "Some/Model"):
        assert models.resolve("tiny") == added / "tiny", name
    shutil.rmtree(added / "tiny")
    (stick / "tokenizer.json").write_bytes((stick / "tokenizer.json").read_bytes() + b" ")
    assert "is damaged or not the official one" in refusal(stick, "tiny")
    assert names(added) == set()
    assert add_model(stick, "mine") == added / "mine"


def test_model_that_is_cut_off_is_not_added(added: Path, stick: Path) -> None:
    with (stick / "model.bin").open("r+b") as file:
        file.truncate(300_000)
    text = refusal(stick)
    assert text.startswith(f"{stick}/model.bin is damaged or no CTranslate2 model: it is cut off")
    assert names(added) == set()
    (stick / "model.bin").unlink()
    assert refusal(stick).startswith(f"the model in {stick} has no model.bin: ")
    assert names(added) == set()
    assert "there is no" in refusal(stick / "nothing")


@pytest.mark.parametrize("name", ["demo", "hub", ".hidden", "../up", "a/b", "", "x" * 65, "ä"])
def test_name_that_would_be_found_elsewhere_is_refused(added: Path, stick: Path, name: str) -> None:
    if not name:
        stick, name = Path(shutil.copytree(stick, stick.with_name("a b"))), "a b"
        assert refusal(stick).startswith("'a b' can't be a model's name: give another one")
        return
    assert "can't be a model's name: give another one with --name" in refusal(stick, name)
    assert not added.exists()


def test_place_that_nobody_may_write_is_named_with_the_remedy(
    home: Path, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").touch()
    monkeypatch.setenv("ASRD_MODELS", str(home / "file"))
    assert refusal(stick).startswith("the model 'danish' could not be added: ")
    # Root may write everywhere but here.
    monkeypatch.setenv("ASRD_MODELS", "/proc/asrd")
    assert refusal(stick).startswith("the model 'danish' could not be added: /proc/asrd")


def test_added_model_comes_before_a_packaged_one_and_both_before_the_cache(
    added: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "packaged"
    monkeypatch.setattr(models, "PACKAGED", packaged)
    monkeypatch.setattr(models, "_snapshot", lambda repository: tmp_path / "cache")
    assert models.resolve("base") == tmp_path / "cache"
    (packaged / "base").mkdir(parents=True)
    assert models.resolve("base") == packaged / "base"
    (added / "base").mkdir(parents=True)
    assert models.resolve("base") == models.resolve("faster-whisper-base") == added / "base"


def test_directory_of_an_added_model_is_shown_by_its_name(added: Path, tmp_path: Path) -> None:
    (added / "tiny.en").mkdir(parents=True)
    (added / "demo").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shown = {
        f"{added}/tiny.en": "tiny.en",
        f"{added}/tiny.en/": "tiny.en",
        f"{added}/demo": f"{added}/demo",
        f"{added}/gone": f"{added}/gone",
        f"{tmp_path}/elsewhere": f"{tmp_path}/elsewhere",
        "": "",
        "demo": "demo",
        "tiny.en": "tiny.en",
        "a/\0": "a/\0",
    }
    for model, name in shown.items():
        assert models.short_name(model) == name
