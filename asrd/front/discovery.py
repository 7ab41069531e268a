"""Where the workers' sockets are: what NAMEs the front is to keep a link to."""

import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)

# What a unit's instance may be called: a name goes into answers, status lines and logs as it is.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@\\-]{0,63}")
_SUFFIX = ".sock"


class WorkerDirectory:
    """Each NAME.sock in it is a worker, for as long as it is there."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._found: dict[str, Path] = {}
        self._problem: str | None = None
        self._ignored: set[str] = set()

    def look(self) -> dict[str, Path]:
        """The sockets by their workers' names. While the directory can't be read (no descriptor
        may be left), whoever was there counts as still there."""
        try:
            files = [path.name for path in self._path.iterdir()]
        except FileNotFoundError:
            files = []
        except OSError as error:
            self._tell(f"cannot look for workers in {self._path}: {error.strerror}")
            return self._found
        self._tell(None)
        names = {file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX)}
        fitting = {name for name in names if _NAME.fullmatch(name)}
        for name in sorted(names - fitting - self._ignored):
            log.warning("%r is no name for a worker: its socket is not used", name)
        self._ignored = names - fitting
        self._found = {name: self._path / f"{name}{_SUFFIX}" for name in fitting}
        return self._found

    def _tell(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.error("%s", problem)
        self._problem = problem
