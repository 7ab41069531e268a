"""The fault campaigns, for as long as ASRD_SOAK_SECONDS says (default: two minutes and a half), and
half as long under systemd."""

import os
from pathlib import Path

import pytest

from tests.soak.__main__ import standalone, systemd

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("ASRD_SOAK_SECONDS", "150"))
SEED = int(os.environ.get("ASRD_SOAK_SEED", "1"))


def test_every_promise_is_kept_whatever_dies() -> None:
    failures = standalone(SEED, SECONDS, clients=16)
    assert not failures, "\n".join(failures)


@pytest.mark.systemd
def test_under_systemd_too() -> None:
    debs = os.environ.get("ASRD_DEBS")
    failures = systemd(SEED, SECONDS / 2, clients=16, debs=Path(debs) if debs else None)
    assert not failures, "\n".join(failures)
