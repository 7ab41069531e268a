"""docs/security.md: each promise names an existing test, and each figure is the code's."""

import re
from pathlib import Path

from asrd.front import memory_bounds
from asrd.settings import FrontSettings
from asrd.wire import frames
from tests.support import worst_mix
from tests.support.paths import ROOT
from tests.support.sources import TREES, names

PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
# Settings that bound nothing that a client can cost.
_NO_BOUNDS = {
    *(
        "socket",
        "status_socket",
        "wyoming",
        "worker_dir",
        "crash_file",
        "log_level",
        "drain_seconds",
    ),
    *(
        "max_attempts",
        "default_model",
        "model_aliases",
        "gateways",
        "wyoming_live",
        "wyoming_end_of_speech_ms",
    ),
}


def test_every_test_that_the_page_names_exists() -> None:
    missing = [(file, test) for file, test in NAMED if not _defines(ROOT / file, test)]
    assert not missing


def _defines(file: Path, test: str) -> bool:
    return file.exists() and (not test or f"def {test}(" in file.read_text())


def test_every_promise_names_a_test() -> None:
    heads = ("promise", "what", "who")
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *rows = table.splitlines()
        if not head.rstrip(" |").endswith("test"):
            assert head.split("|")[1].strip() in heads
            continue
        for row in rows:
            assert "`tests/" in row or "table of bounds" in row, row


def test_every_bound_is_in_the_table() -> None:
    (table,) = re.findall(r"\| what \| bound \|.*?\n\n", PAGE, re.DOTALL)
    named = set(re.findall(r"`(\w+)`", table))
    missing = FrontSettings.__dataclass_fields__.keys() - _NO_BOUNDS - named
    assert not missing, "add these to the table, or to _NO_BOUNDS"
    for constant in (
        frames.MAX_HEADER >> 10,
        frames.MAX_DATA >> 10,
        frames.MAX_DEPTH,
        frames.MAX_FDS,
    ):
        assert re.search(rf"\b{constant}\b", table)
    assert f"{frames.MAX_VALUES:,}" in table


def test_the_sum_of_memory_is_the_codes() -> None:
    settings = FrontSettings()
    (table,) = re.findall(r"\| what \| how much \|.*?\n\n", PAGE, re.DOTALL)
    last = [row.strip("| ").rpartition("|")[2].strip() for row in table.splitlines()[2:]]
    amounts = [int(re.sub(r"\D", "", cell)) for cell in last if cell]
    *parts, process, recordings, descriptors = amounts
    assert sum(parts) == process == memory_bounds.memory(settings) >> 20
    assert recordings == memory_bounds.recordings(settings) >> 20
    assert descriptors == memory_bounds.descriptors(settings)


def test_the_sum_of_the_worst_mix_is_the_codes() -> None:
    (stated,) = re.findall(r"Stated for those: (\d+) MiB", PAGE)
    assert int(stated) == memory_bounds.memory(FrontSettings(**worst_mix.SETTINGS)) >> 20
    assert f"puts {worst_mix.CLIENTS}" in PAGE


# --- promises about the code ----------------------------------------------------------------------

_OPENING = {"open", "fdopen", "Path", "read_text", "read_bytes", "write_text", "write_bytes"}
# These open paths from the settings: the workers' directory with the sockets in it, and crash_file.
_MAY_OPEN = {
    *("front/discovery.py", "front/worker_connection.py"),
    "front/reporting/crash_file.py",
}
# Looks whether the settings have changed.
_MAY_OPEN |= {"front/retry_files.py"}


def test_front_opens_no_path_that_a_client_names() -> None:
    front = {name for name in TREES if name.startswith("front/")}
    assert not [name for name in front - _MAY_OPEN if names(TREES[name]) & _OPENING]
