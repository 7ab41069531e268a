"""The delay after which a refused client should come back. Pure.

Each refused client gets the next slot in a virtual queue of its user. With one delay for all, they
would return at once, one would be served, and refusing the rest would cost more than the jobs.
Users take turns in these queues, so that one user's flood delays that user alone. Clients that
compete for different workers, as for different models, stand in different queues.
"""

from asrd.wire.peer import User

_SHORTEST, _LONGEST = 0.05, 60.0
# The clients that are invited for each free slot. Some never return and some return late, and an
# idle worker costs more than one more refusal.
_OVERBOOKING = 3


class RetryAfter:
    """Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._run_seconds = 1.0
        # By user and workers: the time at which the client refused last was invited.
        self._last: dict[tuple[User, tuple[str, ...]], float] = {}

    def job_ran(self, seconds: float) -> None:
        self._run_seconds += 0.2 * (seconds - self._run_seconds)

    def next_delay(self, user: User, workers: tuple[str, ...], now: float) -> float:
        """Returns the seconds until this user's next client should try again.

        `workers` are the ready ones that could run its job: a slot is free whenever one of them
        ends an average run.
        """
        queue = user, workers
        free_every = self._run_seconds / len(workers) if workers else max(1.0, self._run_seconds)
        self._last = {other: due for other, due in self._last.items() if due > now}
        users = sum(of == workers for _, of in self._last.keys() | {queue})
        behind = self._last.get(queue, now) + free_every * users / _OVERBOOKING
        delay = min(_LONGEST, max(_SHORTEST, free_every, behind - now))
        self._last[queue] = now + delay
        return delay

    def worker_idle(self, worker: str) -> None:
        """Empties the queues for an idle worker: it serves the next client at once."""
        self._last = {
            (user, workers): due
            for (user, workers), due in self._last.items()
            if workers and worker not in workers
        }
