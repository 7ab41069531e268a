"""What `asrd run` makes of its flags and its environment, before it starts anything."""

import os
import sys
from pathlib import Path

import pytest

from asrd.errors import ConfigError
from asrd.standalone import child, run
from asrd.standalone.crew import worker_environment
from asrd.standalone.supervisor import import_path, program


def test_a_directory_that_others_can_write_to_is_no_place_for_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "asrd"
    monkeypatch.setattr(run, "own_directories", lambda: [place])
    assert run._own_socket() == str(place / "asrd.sock")
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o770)
    with pytest.raises(ConfigError, match=r"no safe place .*others may write to it"):
        run._own_socket()
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="give one with --socket"):
        run._own_socket()


def test_the_next_place_is_taken_where_none_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / "missing" / "asrd", tmp_path / "asrd"]
    monkeypatch.setattr(run, "own_directories", lambda: places)
    assert run._own_socket() == str(places[1] / "asrd.sock")


def test_a_model_is_a_name_or_a_path_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASRD_WORKER_MODEL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("small", "mine"):
        (tmp_path / name).mkdir()
    expected = {
        None: None,
        "small": "small",
        "./small": f"{tmp_path}/small",
        "mine": f"{tmp_path}/mine",
        "~/nothing": f"{tmp_path}/nothing",
        "Systran/faster-whisper-small": "Systran/faster-whisper-small",
        "/srv/model": "/srv/model",
    }
    for given, read in expected.items():
        assert run._model(given) == read
    monkeypatch.setenv("ASRD_WORKER_MODEL", "./mine")
    assert run._model(None) == f"{tmp_path}/mine"


def test_a_relative_cache_of_models_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", "cache")
    assert worker_environment(None, None, None)["HF_HOME"] == f"{tmp_path}/cache"


def test_children_get_no_import_path_that_leads_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", "relative", str(tmp_path), "/srv/packages"])
    assert import_path() == "/srv/packages"


def test_children_add_to_their_import_path_only_what_they_lack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = list(sys.path)
    monkeypatch.setattr(sys, "path", list(own))
    child._complete_path(["/srv/packages"])
    assert sys.path == own
    monkeypatch.setattr(child, "_NEEDED", ("no_such_package",))
    child._complete_path(["/srv/packages", own[-1]])
    assert sys.path == [*own, "/srv/packages"]


def test_children_run_this_interpreter_isolated_from_the_environment() -> None:
    command = program("asrd.main", "serve")
    assert command[:3] == [sys.executable, "-E", "-P"]
    assert command[-3:] == [os.fspath(Path(child.__file__)), "asrd.main", "serve"]
