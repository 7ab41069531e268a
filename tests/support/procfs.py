"""What proc(5) tells of a process, which goes on living while it is read."""

from contextlib import suppress
from pathlib import Path


def children(pid: int | str = "self") -> list[int]:
    """Of all its threads; those of one that ends meanwhile are another's by then."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, listed.read_text().split())
    return found
