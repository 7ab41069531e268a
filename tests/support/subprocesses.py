"""Programs that tests run."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.raw import PATIENCE


class LoggedProgram:
    """A process whose output goes to a file, and that ends with the `with`."""

    def __init__(self, command: Sequence[str], log: Path, **more: Any) -> None:
        self._log_path = log
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, **more
        )

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()


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
