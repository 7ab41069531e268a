"""Fault campaigns of ASRD_SOAK_SECONDS (default: 150), and half as long under systemd."""

import os

import pytest

from tests.soak.__main__ import standalone, systemd

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("ASRD_SOAK_SECONDS", "150"))
SEED = int(os.environ.get("ASRD_SOAK_SEED", "1"))


def test_campaign_finds_no_broken_promise() -> None:
    failures = standalone(SEED, SECONDS, clients=16)
    assert not failures, "\n".join(failures)


@pytest.mark.systemd
def test_campaign_under_systemd_finds_no_broken_promise() -> None:
    failures = systemd(SEED, SECONDS / 2, clients=16)
    assert not failures, "\n".join(failures)
