"""Programs that tests run for their output."""

import os
import subprocess
import sys

from tests.fakes import PATIENCE


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **env},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
