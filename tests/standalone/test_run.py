"""Flags and environment of `asrd run`, before it starts anything."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from asrd.errors import ConfigError
from asrd.standalone import child, flags, run
from asrd.standalone.pool import private_directory, worker_environment
from asrd.standalone.programs import import_path, program


def test_socket_directory_must_be_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first one can't be made, so the second one is tried.
    place = tmp_path / "asrd"
    monkeypatch.setattr(run, "own_directories", lambda: [tmp_path / "missing" / "asrd", place])
    assert run._own_socket() == str(place / "asrd.sock")
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o770)
    with pytest.raises(ConfigError, match=r"no safe place .*others may write to it"):
        run._own_socket()
    place.rmdir()
    place.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="name one with --socket"):
        run._own_socket()


def test_model_is_a_name_or_a_path_of_the_user(
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
        assert flags.model(given) == read
    monkeypatch.setenv("ASRD_WORKER_MODEL", "./mine")
    assert flags.model(None) == f"{tmp_path}/mine"


def test_relative_model_cache_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", "cache")
    assert worker_environment(None, None, None)["HF_HOME"] == f"{tmp_path}/cache"


def test_children_import_nothing_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", "relative", str(tmp_path), "/srv/packages"])
    assert import_path() == "/srv/packages"


def test_children_add_an_import_path_only_for_missing_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = list(sys.path)
    monkeypatch.setattr(sys, "path", list(own))
    child._complete_path(["/srv/packages"])
    assert sys.path == own
    monkeypatch.setattr(child, "_NEEDED", ("no_such_package",))
    child._complete_path(["/srv/packages", own[-1]])
    assert sys.path == [*own, "/srv/packages"]


def test_children_run_this_interpreter_in_isolation() -> None:
    command = program("asrd.main", "serve")
    assert command[:3] == [sys.executable, "-E", "-P"]
    assert command[-3:] == [os.fspath(Path(child.__file__)), "asrd.main", "serve"]


def test_directory_of_a_named_socket_is_made_or_explained(tmp_path: Path) -> None:
    assert run._named_socket(f"{tmp_path}/run/asrd.sock") == f"{tmp_path}/run/asrd.sock"
    assert (tmp_path / "run").is_dir()
    (tmp_path / "file").touch()
    for missing in (f"{tmp_path}/no/such/asrd.sock", f"{tmp_path}/file/asrd.sock"):
        with pytest.raises(ConfigError, match=r"can't make .* for the socket: .*--socket PATH"):
            run._named_socket(missing)


def test_private_directory_is_beside_the_socket_if_no_temporary_one_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with private_directory(tmp_path) as directory:
        assert directory.parent == tmp_path
    assert not list(tmp_path.iterdir())
    text = r"no directory for temporary files can be written \(No .*name one by the variable TMPDIR"
    with pytest.raises(ConfigError, match=text), private_directory():
        pass
