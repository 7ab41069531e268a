"""Fixtures for every test. A test must not leak, and CI generates the same examples each time."""

import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.procfs import children

# asrd.engine.whisper sets these for the worker; some tests import the libraries before it does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _allocate_as_a_worker() -> None:
    """A worker's process gets this from its environment (asrd/worker/environment.py). The tests
    that decode in this process take a sixth longer without it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h.
        for parameter, value in ((-8, 1), (-3, 1 << 30), (-1, 1 << 30)):
            mallopt(parameter, value)


_allocate_as_a_worker()

# A container often forbids it. Then each of a thousand processes would compile all of asrd.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background ignores Ctrl-C for them, and so for the programs
# that they start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: the machines are shared, and a slow example is not a bug. No database: a failure must
# not depend on an earlier run.
settings.register_profile(
    "dev", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_collection_finish() -> None:
    """Lets the collector leave out thousands of tests and modules, which stay to the end; many
    tests collect, and faster-whisper does after each file that it decodes."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose name is short: a socket's path has at most 107 bytes (unix(7))."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end of the notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", sock.getsockname())
        yield sock


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a descriptor, a thread or a child process."""
    before = _belongings()
    yield
    for thread in threading.enumerate():
        # anyio stops its threads with the event loop, but does not wait for them.
        if thread.name == "AnyIO worker thread":
            thread.join(10)
    if _belongings() - before:
        # An object that only waits for the garbage collector warns when it goes, and the warning
        # fails the test.
        gc.collect()
    left = _belongings() - before
    assert not left, f"left behind: {sorted(left)}"


def _belongings() -> set[str]:
    # Daemon threads are trio's: its cache keeps idle ones for the next caller.
    threads = {f"thread {t.name}" for t in threading.enumerate() if not t.daemon}
    return threads | {f"child {pid}" for pid in children()} | _descriptors()


def _descriptors() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"fd {entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found
