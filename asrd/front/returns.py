"""When those who were refused shall come back: one after another instead of all at once. Pure.

Who is refused gets the next place in an imaginary line of their user's: told one and the same time,
all would return together, one of them would be served, and the refusals of the others would cost
the machine more than the jobs. Users take turns in it, so that one's flood makes only its own line
longer. Those who asked for one model (None: for whatever there is) don't wait for another's places.
"""

from asrd.identity import User

_SHORTEST, _LONGEST = 0.05, 60.0
# So many are asked to come for each place: some never do, others come late, and a worker that waits
# for nobody is the greater loss.
_OVERBOOKING = 3


class Returns:
    """Times in seconds of the caller's clock."""

    def __init__(self) -> None:
        self._run_seconds = 1.0
        # By user and model: when the one of them who was refused last shall come back.
        self._last: dict[tuple[User, str | None], float] = {}

    def job_ran(self, seconds: float) -> None:
        self._run_seconds += 0.2 * (seconds - self._run_seconds)

    def place(self, user: User, model: str | None, slots: int, now: float) -> float:
        """Seconds until the next one of this user should try again: one run over all `slots` from
        now, or as long after the one before as places become free."""
        # What no worker has ready may be any name: those make no lines of their own.
        line = user, model if slots else None
        free_every = self._run_seconds / slots if slots else max(1.0, self._run_seconds)
        self._last = {other: due for other, due in self._last.items() if due > now}
        users = sum(of == line[1] for _, of in self._last.keys() | {line})
        behind = self._last.get(line, now) + free_every * users / _OVERBOOKING
        wait = min(_LONGEST, max(_SHORTEST, free_every, behind - now))
        self._last[line] = now + wait
        return wait

    def nobody_waits(self, model: str | None) -> None:
        """A worker that has it is idle: whoever comes for it is served, so the line begins anew."""
        self._last = {line: due for line, due in self._last.items() if line[1] not in (None, model)}
