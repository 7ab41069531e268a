"""The fault campaigns, for as long as ASRD_SOAK_SECONDS says (default: three minutes)."""

import os
from pathlib import Path

import pytest

from tests.soak.__main__ import campaign

pytestmark = pytest.mark.soak


def test_every_promise_is_kept_whatever_dies(tmp_path: Path) -> None:
    seconds = float(os.environ.get("ASRD_SOAK_SECONDS", "180"))
    seed = int(os.environ.get("ASRD_SOAK_SEED", "1"))
    failures = campaign(tmp_path, seed, seconds, clients=16)
    assert not failures, "\n".join(failures)
