"""The cores of a process, in trees of files as the kernel and containers show them."""

import os
from pathlib import Path

import pytest

from asrd import cores


def tree(tmp_path: Path, own: str, **files: str) -> Path:
    """A file system whose process is in these groups; `files` are named by their path, with __ for
    each slash and the group's path before the name."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(own)
    for name, text in files.items():
        folder, _, file = name.rpartition("__")
        path = tmp_path / "sys/fs/cgroup" / folder.replace("__", "/")
        path.mkdir(parents=True, exist_ok=True)
        (path / file.replace("cpu_", "cpu.", 1)).write_text(text)
    return tmp_path


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


UNIFIED = "0::/system.slice/a.service\n"
MIXED = "4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n0::/\n"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        pytest.param(UNIFIED, {}, 8, id="no quota"),
        pytest.param(UNIFIED, {"system.slice__a.service__cpu_max": "max 100000"}, 8, id="max"),
        pytest.param(
            UNIFIED,
            {"system.slice__a.service__cpu_max": "600000 100000", "system.slice__cpu_max": "3 1"},
            3,
            id="the slice's is smaller",
        ),
        pytest.param(
            UNIFIED, {"system.slice__a.service__cpu_max": "50000 100000"}, 1, id="half a core"
        ),
        pytest.param(UNIFIED, {"cpu_max": "250000 100000"}, 2, id="a container sees its root"),
        pytest.param(
            MIXED,
            {
                "cpu,cpuacct__docker__1__cpu_cfs_quota_us": "400000",
                "cpu,cpuacct__docker__1__cpu_cfs_period_us": "100000",
                "cpu,cpuacct__cpu_cfs_quota_us": "-1",
            },
            4,
            id="version 1",
        ),
        pytest.param(UNIFIED, {"system.slice__cpu_max": "what?"}, 8, id="another format"),
        pytest.param("", {"cpu_max": "1 1"}, 8, id="no group is known"),
    ],
)
def test_quota_limits_the_cores(
    tmp_path: Path, own: str, files: dict[str, str], expected: int
) -> None:
    assert cores.usable(tree(tmp_path, own, **files)) == expected


def test_affinity_limits_the_cores_below_a_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert cores.usable(tree(tmp_path, UNIFIED, cpu_max="3 1")) == 1


def test_system_without_proc_has_its_affinity(tmp_path: Path) -> None:
    assert cores.usable(tmp_path) == 8


@pytest.mark.parametrize(
    ("usable", "workers", "threads"),
    [(8, 1, 4), (8, 2, 4), (8, 4, 2), (8, 3, 2), (2, 2, 1), (2, 3, 1)],
)
def test_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, usable: int, workers: int, threads: int
) -> None:
    monkeypatch.setattr(cores, "usable", lambda: usable)
    assert cores.share(workers) == threads


@pytest.mark.parametrize(("value", "threads"), [("7", 7), ("0", 4), ("2,1", 4), ("", 4)])
def test_admins_variable_takes_precedence(
    monkeypatch: pytest.MonkeyPatch, value: str, threads: int
) -> None:
    monkeypatch.setattr(cores, "usable", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores.share(1) == threads
