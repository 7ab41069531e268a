"""The cores that this process may use, and a worker's share of them.

Threads that compete for a core cost more than they bring (docs/performance.md), so workers that
compute on the CPU divide the cores among them.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

# CTranslate2's own limit: more threads were not measured. `asrd bench` measures them.
THREADS_MAX = 4


def usable(root: Path = Path("/")) -> int:
    """Returns the number of cores: as many as the affinity and the quotas of the control groups
    allow, at least 1. `root` is the file system's."""
    allowed = float(len(os.sched_getaffinity(0)))
    return max(1, int(min([allowed, *_quotas(root)])))


def share(workers: int) -> int:
    """Returns the threads for each of so many workers on these cores. The variable OMP_NUM_THREADS
    takes precedence, as in all programs with OpenMP."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return divided(usable(), workers)


def divided(cores: int, workers: int) -> int:
    """Returns the default number of threads of each worker."""
    return max(1, min(THREADS_MAX, cores // workers))


def _quotas(root: Path) -> Iterator[float]:
    """Yields the quota in cores of this process's control group and of each group above it.

    A container may see only its own group, as the root of the hierarchy: then the path that
    /proc/self/cgroup names is missing, and the root's quota counts.
    """
    groups = root / "sys/fs/cgroup"
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _above(groups, path, _quota_v2)
            elif "cpu" in controllers.split(","):
                yield from _above(groups / controllers, path, _quota_v1)


def _above(top: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    group = top / path.lstrip("/")
    for directory in (group, *group.parents):
        # A file may be missing, and another system's may have another format.
        with suppress(OSError, ValueError):
            if directory.is_relative_to(top) and (quota := read(directory)) is not None:
                yield quota


def _quota_v2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota = int((group / "cpu.cfs_quota_us").read_text())
    return None if quota < 0 else quota / int((group / "cpu.cfs_period_us").read_text())
