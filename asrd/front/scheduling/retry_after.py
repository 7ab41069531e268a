"""The delay after which a refused client should come back. Pure.

It is the time until there is a place, and each refused client gets the next one in a virtual queue
of its user. With one delay for all, they would return at once, one would be served, and refusing
the rest would cost more than the jobs. Users take turns in these queues, so that one user's flood
delays that user alone. Clients that compete for different workers, as for different models, or for
places of another kind, stand in different queues.
"""

from asrd.wire.peer import User

_SHORTEST, _LONGEST = 0.05, 3600.0
# The clients that are invited for each free place. Some never return and some return late, and an
# idle worker costs more than one more refusal.
_OVERBOOKING = 3
# The names of the workers that could run the job, and whether it is long.
Place = tuple[tuple[str, ...], bool]


class RetryAfter:
    """Times are in seconds of the caller's clock."""

    def __init__(self) -> None:
        # By user and place: the time at which the client refused last was invited.
        self._last: dict[tuple[User, Place], float] = {}

    def next_delay(
        self, user: User, place: Place, soonest: float, run_seconds: float, now: float
    ) -> float:
        """Returns the seconds until this user's next client should try again.

        The first place is free after `soonest` (0: unknown), and then whenever one of its workers
        ends a job like this one, which takes `run_seconds`.
        """
        queue, free_every = (user, place), run_seconds / max(1, len(place[0]))
        self._last = {other: due for other, due in self._last.items() if due > now}
        users = sum(of == place for _, of in self._last.keys() | {queue})
        delay = max(_SHORTEST, soonest or free_every)
        if queue in self._last:
            delay = max(delay, self._last[queue] - now + free_every * users / _OVERBOOKING)
        self._last[queue] = now + min(_LONGEST, delay)
        return min(_LONGEST, delay)

    def place_free(self, worker: str, long: bool) -> None:
        """Empties the queues for a worker that has a place left: it serves the next client at
        once."""
        if self._last:
            self._last = {
                (user, place): due
                for (user, place), due in self._last.items()
                if place[1] != long or (place[0] and worker not in place[0])
            }
