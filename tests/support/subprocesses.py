"""Programs that tests run."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.support.fake_daemon import PATIENCE


def run_python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **env},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )


def started(*arguments: str, **streams: Any) -> "subprocess.Popen[bytes]":
    """Starts asrctl; stdout and stderr are pipes by default."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "asrd.asrctl.cli", *arguments]
    return subprocess.Popen(command, **(pipes | streams))


def read_terminal(terminal: int, until: Callable[[str], bool]) -> str:
    """Returns the text on a terminal as soon as `until` is true for it."""
    seen = b""
    while not until(seen.decode(errors="replace")):
        seen += os.read(terminal, 4096)
    return seen.decode()
