"""The times at which refused clients come back: one after another instead of all at once. Pure.

Who is refused gets the next place in an imaginary line of their user's: told one and the same time,
all would return together, one of them would be served, and the refusals of the others would cost
the machine more than the jobs. Users take turns in it, so that one's flood makes only its own line
longer. Those who compete for other workers, as for another model, make lines of their own.
"""

from asrd.wire.peer import User

_SHORTEST, _LONGEST = 0.05, 60.0
# So many are asked to come for each place: some never do, others come late, and a worker that waits
# for nobody is the greater loss.
_OVERBOOKING = 3


class RetryAfter:
    """Times in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._run_seconds = 1.0
        # By user and workers: the time given to the client that was refused last.
        self._last: dict[tuple[User, tuple[str, ...]], float] = {}

    def job_ran(self, seconds: float) -> None:
        self._run_seconds += 0.2 * (seconds - self._run_seconds)

    def place(self, user: User, workers: tuple[str, ...], now: float) -> float:
        """Seconds until the next one of this user should try again: one run over all
        these ready workers from now, or as long after the one before as places become free."""
        line = user, workers
        free_every = self._run_seconds / len(workers) if workers else max(1.0, self._run_seconds)
        self._last = {other: due for other, due in self._last.items() if due > now}
        users = sum(of == workers for _, of in self._last.keys() | {line})
        behind = self._last.get(line, now) + free_every * users / _OVERBOOKING
        wait = min(_LONGEST, max(_SHORTEST, free_every, behind - now))
        self._last[line] = now + wait
        return wait

    def nobody_waits(self, worker: str) -> None:
        """It is idle: whoever comes for it is served, so the lines before it begin anew."""
        self._last = {
            (user, workers): due
            for (user, workers), due in self._last.items()
            if workers and worker not in workers
        }
