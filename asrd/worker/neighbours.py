"""The number of workers that share this machine's cores."""

import logging
import os
import socket
from pathlib import Path

from asrd.config import load_worker
from asrd.errors import ConfigError

log = logging.getLogger(__name__)

# `asrd run` sets it to its number of workers.
WORKERS_VARIABLE = "ASRD_WORKERS"


def count(listener: socket.socket, config: Path) -> int:
    """Returns the number of workers, this one included and spares excluded; at least 1.

    Under systemd each enabled worker has a socket in the directory of this one's.
    """
    given = os.environ.get(WORKERS_VARIABLE, "")
    if given.isdecimal() and int(given):
        return int(given)
    directory = Path(os.fsdecode(listener.getsockname())).parent
    try:
        names = [path.stem for path in directory.iterdir() if path.suffix == ".sock"]
    except OSError as error:
        log.warning("cannot count the workers in %s: %s", directory, error.strerror)
        return 1
    return max(1, sum(not _is_spare(config, name) for name in names))


def _is_spare(config: Path, name: str) -> bool:
    try:
        return load_worker(config, name).spare
    except ConfigError:
        # Its mistake may be corrected at any time.
        return False
