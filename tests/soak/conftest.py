from pathlib import Path

import pytest

from tests.soak.ledger import Ledger
from tests.support.judging import LIMITS


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "log").write_text("the daemon's last line\n")
    return Ledger("test", 7, tmp_path / "log", LIMITS)
