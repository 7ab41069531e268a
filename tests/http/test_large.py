"""Recordings of gigabytes: they go through the program, and not into its memory."""

import re
from pathlib import Path

import pytest

from tests.support.http import BOUNDARY, FORM, HttpProgram, file, form

GIB = 1 << 30


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) >> 10


@pytest.mark.parametrize("size", [GIB // 4, pytest.param(2 * GIB, marks=pytest.mark.real)])
def test_upload_takes_no_memory_of_the_program(tmp_path: Path, size: int) -> None:
    """Without a daemon: the whole recording arrives before that is noticed."""
    with HttpProgram(tmp_path, str(tmp_path / "asrd.sock"), "drain_seconds = 0") as program:
        before = peak_mib(program.process.pid)
        start, end = form(file(b"x")).split(b"x\r\n")
        with program.connect() as sock:
            length = len(start) + size + 2 + len(end)
            sock.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\n"
                b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n" % (FORM.encode(), length)
            )
            sock.sendall(start)
            piece = (b"\r\n--" + BOUNDARY[:-1] + bytes(100)) * 10_000
            sent = 0
            while sent < size:
                sent += sock.send(piece[: size - sent])
            sock.sendall(b"\r\n" + end)
            assert sock.recv(12) == b"HTTP/1.1 503"
        assert peak_mib(program.process.pid) - before < 16
