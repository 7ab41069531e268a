"""`asrd fetch-model --to` and `--from`: models carried from one machine to another."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from asrd.demo import MODEL
from asrd.engine import fetch_model
from asrd.engine.fetching.cache import locked_directory
from asrd.engine.models import resolve
from asrd.model_table import MODELS, OfficialModel
from tests.support.fetching import KEPT, NAMES, SHA256, names, python, refusal
from tests.support.hub import COMMIT, Hub


def test_model_is_carried_to_a_machine_without_a_network(
    a_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / "stick" / "my"
    assert fetch_model.fetch_model("some/model", to=carried) == carried
    assert names(carried) == {*NAMES, "SHA256SUMS"}
    assert not any(path.is_symlink() for path in carried.iterdir())
    assert names(carried.parent) == {"my"}
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=carried, check=True)
    # Another machine.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other"))
    a_hub.hosts.clear()
    path = fetch_model.fetch_model("some/model", origin=carried)
    assert not a_hub.hosts
    assert resolve("some/model") == path
    assert names(path) == NAMES


@pytest.mark.usefixtures("an_official", "a_hub")
def test_directory_is_filled_from_the_cache_and_never_over_files(tmp_path: Path) -> None:
    cached = fetch_model.fetch_model("tiny")
    fetch_model.fetch_model("tiny", to=tmp_path / "new")
    assert names(tmp_path / "new") == {*NAMES, "SHA256SUMS"}
    assert names(cached) == NAMES
    assert "exists already: name a new directory" in refusal("tiny", to=tmp_path / "new")


@pytest.mark.usefixtures("home")
def test_killed_or_failed_process_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    killed = tmp_path / "cache" / "models--some--model" / "asrd-killed" / "model"
    killed.mkdir(parents=True)
    (killed / "model.bin").write_bytes(b"gigabytes")
    fetch_model.fetch_model("some/model", origin=MODEL)
    assert not killed.parent.exists()
    (tmp_path / "empty").mkdir()
    assert "holds no model" in refusal("some/model", origin=tmp_path / "empty", to=tmp_path / "new")
    assert names(tmp_path) == {"cache", "empty"}


@pytest.mark.usefixtures("home")
def test_directory_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    """They could have files of this user overwritten, by links in it."""
    work = tmp_path / ".new.asrd-partial"
    work.mkdir()
    work.chmod(0o777)
    text = refusal("some/model", origin=MODEL, to=tmp_path / "new")
    assert text.startswith(f"{work} is not private to this user: remove it")
    work.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    work.symlink_to(tmp_path / "theirs")
    refusal("some/model", origin=MODEL, to=tmp_path / "new")
    assert not names(tmp_path / "theirs")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("home")
def test_link_is_no_new_directory(tmp_path: Path) -> None:
    (tmp_path / "new").symlink_to(tmp_path / "nowhere")
    assert "exists already" in refusal("some/model", origin=MODEL, to=tmp_path / "new")
    assert names(tmp_path) == {"new"}


@pytest.mark.usefixtures("home")
def test_of_two_processes_one_fills_the_directory(tmp_path: Path) -> None:
    target = tmp_path / "new"
    code = f"""if True:
        from pathlib import Path
        from asrd.engine.fetch_model import fetch_model
        fetch_model("some/model", origin=Path({str(MODEL)!r}), to=Path({str(target)!r}))
        """
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda _: python(code, ""), range(4)))
    assert sorted(each.returncode for each in done) == [0, 1, 1, 1]
    assert sum("exists already" in each.stderr for each in done) == 3
    assert names(target) == {*NAMES, "SHA256SUMS"}
    assert names(tmp_path) == {"new"}


def test_broken_download_to_a_directory_goes_on_and_looks_incomplete(
    a_hub: Hub, tmp_path: Path
) -> None:
    a_hub.faults += ["break", 404]
    refusal("some/model", to=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    fetch_model.fetch_model("some/model", to=tmp_path / "new")
    assert [wanted for name, wanted in a_hub.downloads if name == "model.bin"] == [
        None,
        f"bytes={KEPT}-",
        f"bytes={KEPT}-",
    ]


@pytest.mark.usefixtures("an_official", "no_hub")
def test_copied_directory_is_verified(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(MODEL, tmp_path / "copy"))
    path = fetch_model.fetch_model("tiny", origin=copy)
    assert resolve("tiny") == resolve("Tiny") == path
    with (copy / "tokenizer.json").open("a") as file:
        file.write(" ")
    assert "tokenizer.json from " in refusal("tiny", origin=copy)
    (copy / "tokenizer.json").unlink()
    assert refusal("tiny", origin=copy).endswith("has no tokenizer.json")


@pytest.mark.usefixtures("no_hub")
def test_files_without_a_known_hash_do_not_pass_for_the_official_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {name: SHA256[name] for name in NAMES - {"model.bin"}}
    model = OfficialModel("some/model", COMMIT, 400_000, known)
    monkeypatch.setitem(MODELS, "tiny", model)
    path = fetch_model.fetch_model("tiny", origin=MODEL)
    assert path.name != COMMIT
    capsys.readouterr()
    # The hub is asked; while it can't be reached, what is here is enough.
    assert fetch_model.fetch_model("tiny") == path
    said = capsys.readouterr().err
    assert said.startswith("asrd: the model 'tiny' could not be fetched: ")
    assert said.endswith("; it is here, and unchanged since it was stored\n")
    model_bin = (path / "model.bin").read_bytes()
    (path / "model.bin").unlink()
    (path / "model.bin").write_bytes(model_bin)
    assert fetch_model.fetch_model("tiny") == path
    assert capsys.readouterr().err.endswith("; it is here, but not verified: no hash is known\n")


def test_directory_that_its_last_holder_removes_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    really_open, opened = os.open, []

    def removed_before(path: Path, flags: int) -> int:
        if path == work:
            opened.append(path)
            if len(opened) == 1:
                work.rmdir()
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", removed_before)
    with locked_directory(work):
        assert work.is_dir()
    assert len(opened) == 2
