"""A process of a machine that runs out of memory, by the kernel's own hand."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.raw import wait_for
from tests.support.systemd.nspawn import Machine


@contextmanager
def little_memory(pid: int) -> Iterator[None]:
    """A control group of the host, in which that process may have no more memory than it has."""
    base = Path("/sys/fs/cgroup")
    first = (base / "memory").is_dir()
    group = base / ("memory/asrd-test" if first else "asrd-test")
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text("1M")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        wait_for("the end of the process", lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def host_pid(machine: Machine, pid: int) -> int:
    """The number that the host has for a process of the machine."""
    space = (machine.inside.parent / "ns" / "pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "ns" / "pid").readlink() == space:
                status = (process / "status").read_text()
                if re.search(rf"^NSpid:.*\s{pid}$", status, re.MULTILINE):
                    return int(process.name)
    raise AssertionError(f"the machine has no process {pid}")
