"""The stderr of processes that really die, as the next process finds it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asrd.wire.fds import OwnedFd
from asrd.worker.stderr_capture import STORED, WORDS_MAX, last_words
from tests.support.fake_daemon import PATIENCE

DUMP = b"""Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "threading.py", line 331 in wait

Current thread 0x00007f0000000002 (most recent call first):
  File "engine.py", line 5 in encode
  File "worker.py", line 9 in main

Extension modules: numpy._core._multiarray_umath (total: 1)
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", None),
        (b"one\ntwo\n\n", "two"),
        (DUMP, 'Fatal Python error: Segmentation fault / File "engine.py", line 5 in encode'),
        (b"a warning\n" + DUMP.splitlines()[0], "Fatal Python error: Segmentation fault"),
        (
            b"terminate called\n  what():  CUDA failed\nFatal Python error: Aborted\n",
            "what(): CUDA failed / Fatal Python error: Aborted",
        ),
        (b"Fatal Python error: Aborted\n", "Fatal Python error: Aborted"),
        (b"\xff\x1b[2J\x00end", "\ufffd\\x1b[2J\\x00end"),
        (b"x" * 5000, "x" * WORDS_MAX),
    ],
)  # fmt: skip
def test_last_words_explain_the_end(text: bytes, words: str | None) -> None:
    assert last_words(text) == words


# --- one process after another --------------------------------------------------------------------

# As in the worker's main; the stored memfd comes as descriptor 3.
PROLOGUE = """
import ctypes, faulthandler, os, sys
from asrd.wire.fds import OwnedFd
from asrd.systemd import Notifier
from asrd.worker.stderr_capture import CapturedStderr, keep_real_stderr
faulthandler.enable(2)
keep_real_stderr()
notifier = Notifier()
stderr = CapturedStderr(OwnedFd(3) if {stored} else None, notifier)
print(stderr.last_pid, stderr.last_words)
sys.stdout.flush()
libc = ctypes.CDLL(None)
"""


class Manager:
    """A service manager that only keeps a descriptor between two processes."""

    def __init__(self, directory: Path) -> None:
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(directory / "notify"))
        self._notify.settimeout(PATIENCE)
        self.stored: OwnedFd | None = None

    def run(self, code: str) -> "subprocess.CompletedProcess[str]":
        source = PROLOGUE.format(stored=self.stored is not None) + code
        passed = None if self.stored is None else self.stored.fileno()
        shell = "exec" if passed is None else f"exec 3<&{passed}; exec"
        done = subprocess.run(
            ["bash", "-c", f'{shell} "$@"', "bash", sys.executable, "-c", source],
            env={**os.environ, "NOTIFY_SOCKET": self._notify.getsockname()},
            pass_fds=[] if passed is None else [passed],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if self.stored is None:
            text, fds, _, _ = socket.recv_fds(self._notify, 4096, 1)
            assert text == f"FDSTORE=1\nFDNAME={STORED}".encode()
            self.stored = OwnedFd(fds[0])
        return done

    def close(self) -> None:
        self._notify.close()
        if self.stored is not None:
            self.stored.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def test_next_process_reports_a_crash_and_passes_its_traceback_on(manager: Manager) -> None:
    first = manager.run("ctypes.string_at(0)")
    assert first.returncode == -signal.SIGSEGV
    assert (first.stdout, first.stderr) == ("None None\n", "")
    second = manager.run("stderr.pass_on()")
    words = second.stdout.split(maxsplit=1)[1]
    assert words.startswith("Fatal Python error: Segmentation fault / File ")
    assert words.endswith(" in string_at\n")
    assert second.stderr.startswith("Fatal Python error: Segmentation fault\n")
    assert "Current thread" in second.stderr
    third = manager.run("")
    assert third.stdout.endswith(" None\n")
    assert third.stderr == ""


def test_text_that_was_passed_on_is_not_passed_on_twice(manager: Manager) -> None:
    said = "libc.perror(b'engine')\nos.write(2, b'bad\\n')\nstderr.pass_on()\nos._exit(70)"
    first = manager.run(said)
    assert first.stderr.endswith("bad\n")
    pid = manager.run("libc.abort()").stdout.split()
    assert pid[1:] == ["bad"]
    last = manager.run("")
    assert last.stdout.endswith(" in <module>\n")
    assert "bad" not in last.stderr


def test_python_writes_to_the_real_stderr_at_once(manager: Manager) -> None:
    first = manager.run("print('from python', file=sys.stderr)\nos._exit(1)")
    assert first.stderr == "from python\n"
    assert manager.run("").stderr == ""


def test_flood_keeps_its_end_in_bounded_memory(manager: Manager) -> None:
    flood = """
for number in range(300):
    os.write(2, b"x" * 9999 + b"\\n")
    stderr.pass_on()
size = os.fstat(2).st_size
os.write(2, b"the end\\n")
print(size)
sys.stdout.flush()
os._exit(1)
"""
    first = manager.run(flood)
    assert int(first.stdout.split()[-1]) < 1 << 20
    assert "x" * 9999 in first.stderr
    second = manager.run("")
    assert second.stdout.endswith(" the end\n")


def test_full_stderr_blocks_nobody_and_loses_nothing(manager: Manager) -> None:
    code = """
reader, writer = os.pipe()
os.set_blocking(writer, False)
try:
    while True:
        os.write(writer, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(writer, True)
os.dup2(writer, sys.stderr.fileno())
os.write(2, b"waits\\n")
stderr.pass_on()
print("went on")
sys.stdout.flush()
os._exit(0)
"""
    assert "went on" in manager.run(code).stdout
    assert manager.run("").stderr == "waits\n"


@pytest.mark.parametrize(
    "forged",
    [
        b"short",
        b"\xff" * 16 + b"lies\n",
        b"\0" * 16 + b"lies\n",
        (1 << 40).to_bytes(8, "little") + b"\0" * 8,
    ],
)
def test_hijacked_predecessor_can_forge_only_its_words(manager: Manager, forged: bytes) -> None:
    manager.run("os._exit(1)")
    assert manager.stored is not None
    os.ftruncate(manager.stored.fileno(), 0)
    os.pwrite(manager.stored.fileno(), forged, 0)
    words = "lies" if b"lies" in forged else "None"
    assert manager.run("libc.abort()").stdout == f"None {words}\n"
    assert " Aborted" in manager.run("").stdout


def test_stored_descriptor_that_is_no_memfd_is_refused(manager: Manager) -> None:
    reader, writer = os.pipe()
    manager.stored = OwnedFd(reader)
    done = manager.run("")
    os.close(writer)
    assert "OSError: [Errno 29]" in done.stderr
