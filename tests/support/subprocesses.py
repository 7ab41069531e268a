"""Programs that tests run for their output."""

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
    """asrctl; stdout and stderr are pipes unless told otherwise."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "asrd.asrctl.cli", *arguments]
    asrctl: subprocess.Popen[bytes] = subprocess.Popen(command, **(pipes | streams))
    return asrctl


def read_terminal(terminal: int, until: Callable[[str], bool]) -> str:
    """What is written on a terminal, up to the moment that it makes `until` true."""
    seen = b""
    while not until(seen.decode(errors="replace")):
        seen += os.read(terminal, 4096)
    return seen.decode()
