"""A short fault campaign with real weights (tests.soak): a job that goes on in the middle of its
recording on another worker has the text that it has undisturbed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.__main__ import real

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("clips")]

_SECONDS = 60


def test_no_fault_changes_a_text(model_path: Callable[[str], Path]) -> None:
    failures = real(model_path("tiny.en"), seed=1, seconds=_SECONDS)
    assert not failures, "\n".join(failures)
