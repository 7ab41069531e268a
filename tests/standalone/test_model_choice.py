"""The model of a newcomer: the best one that is here, or one that is fetched with consent."""

import io
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asrd.demo import MODEL
from asrd.engine.models import REPOSITORIES
from asrd.errors import AsrdError, ConfigError, LoadError
from asrd.standalone import model_choice
from asrd.standalone.model_choice import best_model, ensure_model


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The models on this machine; a fetch adds to them."""
    found: dict[str, Path] = {}

    def resolve(name: str) -> Path:
        if name in found:
            return found[name]
        raise LoadError(f"the model {name!r} is not on this machine; a command fetches it")

    def fetch_model(name: str) -> Path:
        found[name] = MODEL
        return MODEL

    monkeypatch.setattr(model_choice, "resolve", resolve)
    monkeypatch.setattr(model_choice, "fetch_model", fetch_model)
    return found


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> Iterator[Screen]:
    """Yields the stderr of a terminal on which something is typed."""
    keyboard, other_end = pty.openpty()
    screen = Screen()
    os.write(keyboard, typed.encode())
    with open(other_end) as stdin, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", stdin)
        patched.setattr(sys, "stderr", screen)
        yield screen
    os.close(keyboard)


def test_best_model_that_is_complete_is_taken(here: dict[str, Path], tmp_path: Path) -> None:
    here |= {"large-v3": tmp_path, "small": MODEL, "base": MODEL, "medium.en": MODEL}
    assert best_model(yes=False) == "small"
    assert list(model_choice._BEST_FIRST) == list(dict.fromkeys(model_choice._BEST_FIRST))
    aliases = {"large", "turbo"}
    assert REPOSITORIES.keys() - aliases == set(model_choice._BEST_FIRST)


def test_model_that_is_here_needs_no_consent(here: dict[str, Path]) -> None:
    here["small"] = MODEL
    ensure_model("small", yes=False)


def test_yes_fetches_without_a_question(here: dict[str, Path], tmp_path: Path) -> None:
    assert best_model(yes=True) == "base"
    # The remains of an interrupted download.
    here["tiny"] = tmp_path
    ensure_model("tiny", yes=True)
    assert here == {"base": MODEL, "tiny": MODEL}


def test_without_a_terminal_the_error_has_the_command(here: dict[str, Path]) -> None:
    with pytest.raises(ConfigError) as error:
        best_model(yes=False)
    assert str(error.value) == (
        "there is no speech model on this machine yet: `asrd fetch-model base` fetches it "
        "(148 MB), and so does --yes"
    )
    with pytest.raises(ConfigError, match=r"'small' is not on this machine: `asrd fetch-model sm"):
        ensure_model("small", yes=False)
    assert not here


@pytest.mark.parametrize("answer", ["\n", "y\n", "Yes\n"])
def test_consent_on_a_terminal(
    here: dict[str, Path], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with terminal(monkeypatch, answer) as screen:
        assert best_model(yes=False) == "base"
    assert here == {"base": MODEL}
    about, question = screen.getvalue().splitlines()
    assert about == "asrd: there is no speech model on this machine yet"
    assert question.startswith("Fetch base (148 MB) from https://")
    assert " into /" in question


# The last one is Ctrl-D.
@pytest.mark.parametrize("answer", ["n\n", "what?\n", "\x04"])
def test_anything_else_is_no_consent(
    here: dict[str, Path], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with terminal(monkeypatch, answer), pytest.raises(AsrdError, match="nothing was fetched"):
        ensure_model("small", yes=False)
    assert not here


def test_wrong_name_or_directory_is_never_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fetch_model(name: str) -> Path:
        raise AssertionError(name)

    monkeypatch.setattr(model_choice, "fetch_model", fetch_model)
    for name in ("smal", str(tmp_path), str(tmp_path / "gone"), "x" * 5000):
        with pytest.raises(LoadError):
            ensure_model(name, yes=True)


def test_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'asrd\[worker\]'"):
        ensure_model("base", yes=True)
