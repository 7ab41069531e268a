"""Short runs of all fuzzers (docs/reliability.md); ASRD_FUZZ_SECONDS and ASRD_FUZZ_SEED change
their length (of each) and seed."""

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
def test_no_input_is_answered_by_anything_but_an_error_of_ours(target: str) -> None:
    # Without atheris this fails: a layer that is asked for is never skipped.
    run = guided.fuzz(target, SECONDS, 0, SEED, guided.CORPUS / target)
    print(run)
    assert run.finding is None
    assert run.executions > len(list((guided.CORPUS / target).iterdir()))


@pytest.mark.parametrize("name", DAEMONS)
def test_no_message_harms_a_daemon(name: str, tmp_path: Path) -> None:
    with DAEMONS[name](tmp_path) as daemon:
        print(structured.fuzz(daemon, SEED, SECONDS, 0))
