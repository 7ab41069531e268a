"""The lookup of a model, from its name to its directory."""

from pathlib import Path

import pytest
from faster_whisper import utils
from huggingface_hub import constants

from asrd.demo import MODEL
from asrd.engine.models import REPOSITORIES, resolve
from asrd.errors import LoadError


def test_names_are_those_of_faster_whisper() -> None:
    assert REPOSITORIES == utils._MODELS


def test_demo_model_and_directories_are_found() -> None:
    for name in ("", "demo", str(MODEL)):
        assert resolve(name) == MODEL


@pytest.mark.parametrize(
    "name",
    [
        "/no/such/directory",
        "tinny",
        "a/b\nc",
        "a/\0",
        "a/" + "x" * 300,
        # Names that only the hub library refuses.
        "-a/b",
        "a..b/c",
    ],
)
def test_impossible_name_is_refused(name: str) -> None:
    with pytest.raises(LoadError, match="there is no model"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "near"), [("smal", "small"), ("Large_v3", "large-v3"), ("turbo-v3", "turbo")]
)
def test_misspelt_name_gets_a_suggestion(name: str, near: str) -> None:
    with pytest.raises(LoadError, match=r"did you mean ([\w. -]+)\? Else give") as caught:
        resolve(name)
    assert near in str(caught.value)


@pytest.mark.parametrize("name", ["large-v3", "nobody/nothing-at-all"])
def test_model_that_is_not_here_is_named_with_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("ASRD_MODELS", str(tmp_path))
    with pytest.raises(LoadError) as caught:
        resolve(name)
    text = f"the model {name!r} is not on this machine; `asrd fetch-model {name}` fetches it, "
    assert (
        str(caught.value) == text + "and without a network `asrd add-model DIR` adds a copy of it"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("base.pt", "is a PyTorch checkpoint"),
        ("model.bin", "is a file of a model: give its directory"),
        ("ggml-base.bin", "is a file, and a model is a directory"),
    ],
)
def test_file_is_no_model(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(LoadError, match=text):
        resolve(str(tmp_path / name))
    # An unreadable place, without a dependence on the user's rights.
    with pytest.raises(LoadError, match="can't be read: File name too long"):
        resolve("/" + "x" * 300)
