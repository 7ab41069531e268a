"""What a test must not leave behind: descriptors, threads, children."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def descriptors() -> dict[int, str]:
    """Every open descriptor of this process and what it is open on."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the listing's own
    return found


def _threads() -> set[threading.Thread]:
    # Daemon threads are trio's idle ones: its cache keeps them for the next caller.
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@contextmanager
def no_leaks() -> Iterator[None]:
    before, threads, children = descriptors(), _threads(), _children()
    yield
    after = descriptors()
    left = {fd: what for fd, what in after.items() if before.get(fd) != what}
    assert not left, f"descriptors left open: {left}"
    assert _threads() == threads
    assert _children() <= children
