"""The directory of the workers' sockets, which names the workers that the front connects to."""

import logging
import re
import socket
from pathlib import Path

log = logging.getLogger(__name__)

# The names of a unit's instances. They go into answers, status lines and logs unescaped.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@\\-]{0,63}")
_SUFFIX = ".sock"


class WorkerDirectory:
    """Each NAME.sock in it is a worker, as long as it is there."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._found: dict[str, Path] = {}
        self._problem: str | None = None
        self._ignored: set[str] = set()

    def look(self) -> dict[str, Path]:
        """Returns the sockets by their workers' names: the previous ones while the directory can't
        be read (for example, because no descriptor is left)."""
        try:
            files = [path.name for path in self._path.iterdir()]
        except FileNotFoundError:
            files = []
        except OSError as error:
            self._report(f"cannot look for workers in {self._path}: {error.strerror}")
            return self._found
        self._report(None)
        names = {file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX)}
        fitting = {name for name in names if _NAME.fullmatch(name)}
        for name in sorted(names - fitting - self._ignored):
            log.warning("%r is not a valid name for a worker: its socket is not used", name)
        self._ignored = names - fitting
        self._found = {name: self._path / f"{name}{_SUFFIX}" for name in fitting}
        return self._found

    def _report(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.error("%s", problem)
        self._problem = problem


def connected(path: Path) -> socket.socket:
    """Returns a connection to a worker, which does not block. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock
