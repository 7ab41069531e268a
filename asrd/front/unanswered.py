"""The accepted requests that have no answer yet, and the live streams, by user."""

from collections import Counter
from typing import Protocol

from asrd.errors import Busy
from asrd.front.scheduling.actions import Failure
from asrd.wire.peer import User, named


class OpenStream(Protocol):
    """A live stream, which counts as a job while it arrives. `fail` ends it."""

    user: User

    def fail(self, failure: Failure) -> None: ...


class Unanswered:
    """At most `limit` of each user; 0: no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of_user: Counter[User] = Counter()
        self._streams: set[OpenStream] = set()

    def __getitem__(self, user: User) -> int:
        return self._of_user[user]

    def __len__(self) -> int:
        """Returns the number of users."""
        return len(self._of_user)

    def why_full(self, user: User) -> str | None:
        """Returns one sentence if `user` has as many as it may, None if not."""
        if self._limit and self._of_user[user] >= self._limit:
            return f"{self._limit} jobs of {named(user)} are unanswered"
        return None

    def add(self, user: User) -> None:
        self._of_user[user] += 1

    def remove(self, user: User) -> None:
        self._of_user[user] -= 1
        if not self._of_user[user]:
            del self._of_user[user]

    def begin_stream(self, stream: OpenStream) -> None:
        """Raises Busy."""
        full = self.why_full(stream.user)
        if full is not None:
            raise Busy(full, retry_after_ms=1000)
        self._streams.add(stream)
        self.add(stream.user)

    def end_stream(self, stream: OpenStream) -> None:
        self._streams.remove(stream)
        self.remove(stream.user)

    def fail_streams(self, failure: Failure) -> None:
        for stream in list(self._streams):
            stream.fail(failure)
