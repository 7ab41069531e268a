"""The number of workers that share the cores, from a real directory of sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from asrd.worker import neighbours


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of worker 0, with those of workers 1 and `small` beside it."""
    monkeypatch.delenv(neighbours.WORKERS_VARIABLE, raising=False)
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for sock, name in zip(made, ("0", "1", "small"), strict=True):
            sock.bind(str(tmp_path / f"{name}.sock"))
        yield made[0]


def test_each_socket_beside_its_own_is_a_worker(listener: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "README").touch()
    assert neighbours.count(listener, tmp_path / "asrd.toml") == 3


def test_spare_needs_no_cores(listener: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "worker-small.toml").write_text("spare = true\n")
    (tmp_path / "worker-1.toml").write_text("spare = 'no boolean'\n")
    assert neighbours.count(listener, tmp_path / "asrd.toml") == 2


def test_only_spares_share_as_one(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASRD_WORKER_SPARE", "true")
    assert neighbours.count(listener, tmp_path / "asrd.toml") == 1


@pytest.mark.parametrize(("value", "workers"), [("5", 5), ("0", 3), ("many", 3)])
def test_the_supervisor_knows_its_number(
    listener: socket.socket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    workers: int,
) -> None:
    monkeypatch.setenv(neighbours.WORKERS_VARIABLE, value)
    assert neighbours.count(listener, tmp_path / "asrd.toml") == workers


def test_directory_that_is_gone_costs_a_warning(
    listener: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()
    assert neighbours.count(listener, tmp_path / "asrd.toml") == 1
    assert "cannot count the workers" in caplog.text
    tmp_path.mkdir()
