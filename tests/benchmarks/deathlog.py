"""The daemon's log with the moment at which each line came: the parts of a recovery."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field

_NOTICED = re.compile(r"asrd-run: asr-worker@0: ")
_LOADED = re.compile(r"asr-worker@0: .* loaded on ")


@dataclass(frozen=True)
class Parts:
    """Seconds; they add up to the time from the kill to the answer. `load` is the worker's own
    `load_seconds`."""

    notice: float
    start: float
    load: float
    answer: float

    @staticmethod
    def names() -> list[str]:
        return ["notice", "interpreter, imports", "last imports, load, warm-up", "first answer"]

    def values(self) -> tuple[float, ...]:
        return astuple(self)


@dataclass
class DeathLog:
    """`sink` is the daemon's stderr."""

    sink: int
    _lines: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def open(cls) -> Iterator["DeathLog"]:
        source, sink = os.pipe()
        log = cls(sink)
        thread = threading.Thread(target=log._read, args=(source,))
        thread.start()
        try:
            yield log
        finally:
            os.close(sink)
            thread.join()

    def _read(self, source: int) -> None:
        with os.fdopen(source, errors="replace") as lines:
            for line in lines:
                self._lines.append((time.monotonic(), line))

    def parts(self, killed: float, answered: float, load_seconds: float) -> list[Parts]:
        """Of the recovery between the two; none where the log does not have its lines."""
        times = []
        for pattern in (_NOTICED, _LOADED):
            lines = [at for at, line in self._lines if at > killed and pattern.search(line)]
            if not lines:
                return []
            times.append(lines[0])
        noticed, loaded = times
        start = loaded - load_seconds - noticed
        return [Parts(noticed - killed, start, load_seconds, answered - loaded)]
