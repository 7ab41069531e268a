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


def tcp_timer(here: int, there: int) -> str:
    """The kernel's timer of a connection over IPv4 from port `here` to `there`: `00` none, `01` a
    repetition of what was sent, `02` the question whether the peer is there."""
    ends = f"{here:04X}", f"{there:04X}"
    lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    (found,) = (line[5] for line in lines if (line[1][9:], line[2][9:]) == ends)
    return found[:2]
