"""Standard descriptors that are closed, broken, or full."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest

from asrd import stdio
from asrd.journal import StderrHandler
from tests.support.subprocesses import run_python


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that nobody reads."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def fill(fd: int) -> None:
    while stdio.write(fd, bytes(4096)):
        pass


def test_full_pipe_is_not_waited_for(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    assert stdio.write(pipe[1], b"more") == 0
    os.read(pipe[0], 4096)
    assert stdio.write(pipe[1], bytes(5000)) == 4096


def test_broken_descriptor_takes_everything(pipe: tuple[int, int]) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, pipe[0])
    os.close(null)
    assert stdio.write(pipe[1], bytes(5000)) == 5000
    assert stdio.write(9999, b"x") == 1


_NONE_ALLOWED = """
import resource
from asrd import stdio
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
stdio.say("no descriptor is left")
# Coverage writes its data at the end.
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
"""


def test_message_is_written_without_free_descriptors() -> None:
    assert run_python(_NONE_ALLOWED).stderr == "no descriptor is left\n"


def test_log_counts_its_lost_lines(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.dup(pipe[1]), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        handler = StderrHandler()
        fill(pipe[1])
        for _ in range(3):
            handler.emit(logging.makeLogRecord({"msg": "lost"}))
        os.read(pipe[0], 1 << 20)
        for text in ("first", "second"):
            handler.emit(logging.makeLogRecord({"msg": text}))
        assert os.read(pipe[0], 4096) == b"first dropped=3\nsecond\n"


_CLOSED = """
import os, sys
os.closerange(0, 3)
sys.stdin = sys.stdout = sys.stderr = None
from asrd import stdio
stdio.open_missing()
assert [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)] == [os.devnull] * 3
stdio.say("this is lost")
print("so is this", flush=True)
assert sys.stdin.read() == ""
"""


def test_closed_standard_streams_become_dev_null() -> None:
    run_python(_CLOSED)
