"""The end of a process in words."""

from pathlib import Path

import pytest

from asrd.standalone import exits


@pytest.mark.parametrize(
    ("code", "watchdog", "oom", "words"),
    [
        (3, False, True, "exited with 3"),
        (-11, False, True, "killed by SIGSEGV"),
        (-9, False, False, "killed by SIGKILL"),
        (-9, False, True, "killed by SIGKILL, perhaps out of memory"),
        (-9, True, True, "killed by SIGKILL (watchdog)"),
        (-200, False, False, "killed by signal 200"),
    ],
)
def test_description(code: int, watchdog: bool, oom: bool, words: str) -> None:
    assert exits.description(code, watchdog, oom) == words


def test_kills_are_those_that_the_kernel_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "_VMSTAT", tmp_path / "vmstat")
    assert exits.oom_kills() == 0
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill 12\npgfault 3\n")
    assert exits.oom_kills() == 12
