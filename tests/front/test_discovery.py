"""The directory of the workers' sockets."""

import errno
import logging
from pathlib import Path
from typing import Any, NoReturn

import pytest

from asrd.front.discovery import WorkerDirectory


def test_only_names_that_are_safe_in_a_line_are_workers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [".sock", "..sock", "a\nb.sock", "a b.sock", "é.sock", "\udcff.sock", "x" * 70 + ".sock"]
    for name in ["0.sock", r"gpu-1.large\x2dv3.sock", "0.socket", *odd]:
        (tmp_path / name).touch()
    directory = WorkerDirectory(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        found = directory.look()
        directory.look()
    names = "0", r"gpu-1.large\x2dv3"
    assert found == {name: tmp_path / f"{name}.sock" for name in names}
    assert len(caplog.records) == len(odd)


def test_workers_stay_while_the_directory_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*_: Any) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    (tmp_path / "0.sock").touch()
    directory = WorkerDirectory(str(tmp_path))
    found = directory.look()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", exhausted)
        assert directory.look() == directory.look() == found
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    (tmp_path / "0.sock").unlink()
    assert directory.look() == {}
    tmp_path.rmdir()
    assert directory.look() == {}
