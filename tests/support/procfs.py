"""Facts about processes from proc(5); a process may change or end while they are read."""

from contextlib import suppress
from pathlib import Path


def children(pid: int | str = "self") -> list[int]:
    """The children of all threads. Those of a thread that ends are listed with another thread."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, listed.read_text().split())
    return found


def asleep(pid: int) -> bool:
    """Returns True if its main thread waits in the kernel.

    Python looks for signals between two steps: one that comes just before a wait begins is noticed
    only when the wait ends, so a test that measures the time until then sends it to a sleeper.
    """
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
