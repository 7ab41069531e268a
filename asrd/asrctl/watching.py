"""`asrctl transcribe --watch`: recordings that arrive in a folder, until Ctrl-C.

The folder is looked at every second, which works on each file system, also on a network's.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from asrd.asrctl import files
from asrd.exitcodes import Exit

LOOK_SECONDS = 1.0
# A device that copies a recording may pause for as long.
QUIET_SECONDS = 2.0
RETRY_SECONDS = 10.0
# Failures of the daemon, which say nothing about the recording.
_LATER = (Exit.UNREACHABLE, Exit.UNAVAILABLE, Exit.BUSY)


class Arrivals:
    """Recordings that nobody has written to for a while, each once for each of its versions."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Each one's size and time of change, and since when it has had them.
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        self._taken: dict[str, tuple[int, int]] = {}

    def look(self, folder: Path) -> list[str]:
        """Returns the recordings that are complete and were not taken yet."""
        now = self._clock()
        seen: dict[str, tuple[tuple[int, int], float]] = {}
        for path in files.media(folder):
            with suppress(OSError):
                found = path.stat()
                version = found.st_size, found.st_mtime_ns
                before, since = self._seen.get(str(path), (None, now))
                seen[str(path)] = version, since if version == before else now
        self._seen = seen
        self._taken = {name: self._taken[name] for name in seen if name in self._taken}
        return [
            name
            for name, (version, since) in seen.items()
            if now - since >= QUIET_SECONDS and self._taken.get(name) != version
        ]

    def take(self, name: str) -> None:
        self._taken[name] = self._seen[name][0]


def watch(folder: Path, transcribe: Callable[[list[str]], Mapping[str, Exit]]) -> Exit:
    """Transcribes what is in the folder, and what arrives, until Ctrl-C. A recording that fails is
    not tried again until it changes; one that the daemon can't take now is tried again.
    `transcribe` returns the codes of those that it attempted.

    Raises FileNotFoundError when the folder is gone.
    """
    arrivals = Arrivals()
    try:
        while folder.is_dir():
            names = arrivals.look(folder)
            codes = transcribe(names) if names else {}
            taken = [name for name in names if codes.get(name, Exit.BUSY) not in _LATER]
            for name in taken:
                arrivals.take(name)
            time.sleep(LOOK_SECONDS if len(taken) == len(names) else RETRY_SECONDS)
    except KeyboardInterrupt:
        return Exit.OK
    raise FileNotFoundError(2, os.strerror(2), str(folder))
