"""A limit on what all users together, and each of them, may take. Pure."""

from collections import Counter

from asrd.wire.peer import User, named


class Quota:
    """At most `limit` of `what` for all users, and `per_user` for each (0: no limit of its own).

    All of it counts for the quota that it is `within`, too.
    """

    def __init__(self, limit: int, per_user: int, what: str, within: "Quota | None" = None) -> None:
        self.used = 0
        self._within = within
        self.limit, self._per_user, self._what = limit, per_user, what
        self._of_user: Counter[User] = Counter()

    def __contains__(self, user: User) -> bool:
        """Returns True if this user takes anything."""
        return user in self._of_user

    def why_full(self, user: User, more: int = 1) -> str | None:
        """Returns one sentence if `user` may not take `more`, None if there is room."""
        if self.used + more > self.limit:
            return f"the limit for all clients is reached ({self._what}: {self.limit})"
        if 0 < self._per_user < self._of_user[user] + more:
            return f"the limit for {named(user)} is reached ({self._what}: {self._per_user})"
        return None if self._within is None else self._within.why_full(user, more)

    def add(self, user: User, change: int) -> None:
        """Counts what a user takes; a negative `change` gives it back."""
        self.used += change
        self._of_user[user] += change
        if not self._of_user[user]:
            del self._of_user[user]
        if self._within is not None:
            self._within.add(user, change)
