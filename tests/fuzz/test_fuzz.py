"""Short runs of all fuzzers (docs/reliability.md). ASRD_FUZZ_SECONDS is the length of each,
ASRD_FUZZ_SEED the seed."""

import os
from pathlib import Path

import pytest

from tests.fuzz import guided, structured
from tests.fuzz.__main__ import DAEMONS
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.fuzz

SECONDS = float(os.environ.get("ASRD_FUZZ_SECONDS", "12"))
SEED = int(os.environ.get("ASRD_FUZZ_SEED", "1"))


@pytest.mark.parametrize("target", TARGETS)
def test_guided_fuzzing_finds_no_bug(target: str) -> None:
    # Without atheris this fails: a requested layer is never skipped.
    run = guided.fuzz(target, SECONDS, 0, SEED, guided.CORPUS / target)
    print(run)
    assert run.finding is None
    assert run.executions > len(list((guided.CORPUS / target).iterdir()))


@pytest.mark.parametrize("name", DAEMONS)
def test_daemon_survives_almost_valid_messages(name: str, tmp_path: Path) -> None:
    with DAEMONS[name](tmp_path) as daemon:
        print(structured.fuzz(daemon, SEED, SECONDS, 0))
