"""The deaths of a worker's processes in a row before one was ready. Pure.

Without a limit each process that dies while it loads is followed by another one, and clients wait
for it until their time is up, without the reason.
"""

# So many deaths within at least so many seconds are no accident, nor a restart.
_DEATHS, _SECONDS = 3, 10.0


class EarlyDeaths:
    def __init__(self) -> None:
        self._count, self._since = 0, 0.0
        # How the last one ended of those whose end the service manager has reported.
        self._exit: str | None = None

    def end(self) -> None:
        """A process is ready."""
        self._count, self._exit = 0, None

    def explain(self, exit: str | None) -> None:
        self._exit = exit or self._exit

    def add(self, noticed: str, now: float) -> str | None:
        """Counts a death. Returns one sentence if the worker is not expected to come up, None while
        it may."""
        if not self._count:
            self._since = now
        self._count += 1
        if self._count < _DEATHS or now - self._since < _SECONDS:
            return None
        return f"its process dies again and again while it loads its model: {self._exit or noticed}"
