"""When those who were refused shall come back: one after another instead of all at once. Pure.

Who is refused gets the next place in an imaginary line of their user's: told one and the same time,
all would return together, one of them would be served, and the refusals of the others would cost
the machine more than the jobs. Users take turns in it, so that one's flood makes only its own line
longer.
"""

_SHORTEST, _LONGEST = 0.05, 60.0
# So many are asked to come for each place: some never do, others come late, and a worker that waits
# for nobody is the greater loss.
_OVERBOOKING = 3


class Returns:
    """Times in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._run_seconds = 1.0
        # By user: when the one of them who was refused last shall come back.
        self._last: dict[int, float] = {}

    def job_ran(self, seconds: float) -> None:
        self._run_seconds += 0.2 * (seconds - self._run_seconds)

    def place(self, uid: int, slots: int, now: float) -> float:
        """Seconds until the next one of this user should try again: one run over all `slots` from
        now, or as long after the one before as places become free."""
        free_every = self._run_seconds / slots if slots else max(1.0, self._run_seconds)
        self._last = {user: due for user, due in self._last.items() if due > now}
        users = len(self._last.keys() | {uid})
        behind = self._last.get(uid, now) + free_every * users / _OVERBOOKING
        wait = min(_LONGEST, max(_SHORTEST, free_every, behind - now))
        self._last[uid] = now + wait
        return wait

    def nobody_waits(self) -> None:
        """A worker is idle: whoever comes is served, so the line begins anew."""
        self._last.clear()
