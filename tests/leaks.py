"""What a test must not leave behind: descriptors, threads, children."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_leaks() -> Iterator[None]:
    before = belongings()
    yield
    if belongings() - before:
        # What only waits for the garbage collector warns as it goes, which fails the test too.
        gc.collect()
    left = belongings() - before
    assert not left, f"left behind: {sorted(left)}"


def belongings() -> set[str]:
    # Trio (daemon threads) and anyio keep idle threads for the next caller.
    threads = {
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if not thread.daemon and thread.name != "AnyIO worker thread"
    }
    children = {
        f"child {pid}"
        for task in Path("/proc/self/task").glob("*/children")
        for pid in task.read_text().split()
    }
    return threads | children | _descriptors()


def _descriptors() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"fd {entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue  # the listing's own
    return found
