"""Clients in forked processes: a connection belongs to the process that made it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_daemon import (
    INFO,
    PATIENCE,
    FakeDaemon,
    Peer,
    answer,
    begin,
    busy,
    say,
    segment,
    transcript,
)

Run = Callable[..., "subprocess.Popen[str]"]
ASYNC = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    """Starts a program of tests/support/forking.py."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        program = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.support.forking", *arguments],
            env={**os.environ, "ASRD_SOCKET": str(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(program)
        return program

    yield start
    for program in started:
        with program:
            program.kill()


def ends_well(program: "subprocess.Popen[str]") -> None:
    _, complaints = program.communicate(timeout=2 * PATIENCE)
    assert (program.returncode, complaints) == (0, "")


def own_name(peer: Peer, request: dict[str, Any]) -> None:
    answer(request["job_id"])(peer, request)


class Held:
    """A daemon that holds back the end of the job `kept` until a `describe` request."""

    def __init__(self, path: Path) -> None:
        self._kept: list[tuple[Peer, dict[str, Any]]] = []
        self.daemon = FakeDaemon(path, [self._job], others={"describe": self._describe})

    def _job(self, peer: Peer, request: dict[str, Any]) -> None:
        if request["job_id"] == "refused":
            busy(3_600_000)(peer, request)
            return
        if request["job_id"] != "kept":
            own_name(peer, request)
            return
        say(peer, request, ["a"])
        self._kept.append((peer, request))

    def _describe(self, peer: Peer, data: dict[str, Any]) -> None:
        for holder, request in self._kept:
            holder.send("segment", job_id="kept", index=1, segment=segment(1, "b"))
            holder.send("transcript", **transcript(request, ["a", "b"]))
        peer.send("info", **INFO)


@pytest.mark.parametrize("program", ["children_and_grandchildren", "threads_alive"])
def test_children_have_connections_of_their_own(path: Path, run: Run, program: str) -> None:
    with FakeDaemon(path, [own_name]) as daemon:
        ends_well(run(program))
        assert len({job.connection for job in daemon.jobs}) > 1
        assert not [request for request in daemon.requests if request.type == "cancel"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pools_can_share_a_client(path: Path, run: Run, method: str) -> None:
    with FakeDaemon(path, [own_name]):
        ends_well(run("multiprocess", method))


def test_child_has_no_effect_on_a_stream(path: Path, run: Run) -> None:
    with Held(path).daemon:
        ends_well(run("inherited_stream"))


@ASYNC
def test_child_has_no_effect_on_an_async_stream(path: Path, run: Run, backend: str) -> None:
    with Held(path).daemon as daemon:
        ends_well(run("inherited_async_stream", backend))
        assert not [request for request in daemon.requests if request.type == "cancel"]


def test_child_keeps_nothing_open(path: Path, run: Run) -> None:
    with Held(path).daemon:
        ends_well(run("nothing_stays_open"))


def test_fork_in_the_middle_of_a_call(path: Path, run: Run) -> None:
    with FakeDaemon(path, [answer("a", "b")]) as daemon:
        ends_well(run("fork_in_a_callback"))
        assert len(daemon.jobs) == 1


@pytest.mark.parametrize(
    ("program", "argument"),
    [
        ("close_while_a_child_lives", "close"),
        ("close_while_a_child_lives", "drop"),
        ("close_while_a_copy_lives", ""),
        ("leave_while_a_copy_lives", "asyncio"),
        ("leave_while_a_copy_lives", "trio"),
    ],
)
def test_parent_cancels_in_spite_of_copies(
    path: Path, run: Run, program: str, argument: str
) -> None:
    with FakeDaemon(path, [begin("a")]) as daemon:
        parent = run(program, *argument.split())
        # All copies exist until the end of the parent's stdin.
        daemon.wait_for_hang_up()
        ends_well(parent)


def test_child_that_collects_a_stream_cancels_nothing(path: Path, run: Run) -> None:
    def behave(peer: Peer, request: dict[str, Any]) -> None:
        (begin("a") if request["job_id"] == "j" else own_name)(peer, request)

    with FakeDaemon(path, [behave]) as daemon:
        parent = run("abandoned_stream")
        assert parent.stdin is not None and parent.stdout is not None
        assert parent.stdout.readline() == "still running\n"
        # The parent's first connection.
        assert 0 not in daemon.hang_ups
        parent.stdin.write("!")
        parent.stdin.flush()
        daemon.wait_for_hang_up(2)
        assert 0 in daemon.hang_ups
        ends_well(parent)
