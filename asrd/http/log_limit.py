"""The limit of log entries that clients cause: somebody could fill the log with them."""

import time

LOGGED_MAX = 10


class LogLimit:
    """At most `LOGGED_MAX` entries of a kind in a minute."""

    def __init__(self) -> None:
        self._minute, self._in_minute, self._left_out = -1, 0, 0

    def next(self, now: float | None = None) -> str | None:
        """Returns the end of the next entry, which says how many before were left out; None if it
        is left out, too. `now` in seconds."""
        minute = int((time.monotonic() if now is None else now) // 60)
        if minute != self._minute:
            self._minute, self._in_minute = minute, 0
        self._in_minute += 1
        if self._in_minute > LOGGED_MAX:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return f"; {left_out} more before were not logged" if left_out else ""
