"""The requests that were accepted and have no answer yet, by user."""

from collections.abc import Iterator

from asrd.front.request import Request
from asrd.wire.peer import Peer, User


class Unanswered:
    def __init__(self) -> None:
        # Dicts for sets that keep the order of arrival.
        self._of_user: dict[User, dict[Request, None]] = {}

    def add(self, request: Request) -> None:
        self._of_user.setdefault(request.job.user, {})[request] = None

    def remove(self, request: Request) -> None:
        """Once it has its answer; one that was never accepted is none of them."""
        theirs = self._of_user.get(request.job.user, {})
        theirs.pop(request, None)
        if not theirs:
            self._of_user.pop(request.job.user, None)

    def count(self, user: User) -> int:
        return len(self._of_user.get(user, ()))

    def named(self, job_id: str, peer: Peer) -> Iterator[Request]:
        """The requests with this id that `peer` may see. The cost does not depend on other users'
        requests."""
        for user in list(self._of_user) if peer.is_root else [peer.user]:
            theirs = [r for r in self._of_user.get(user, ()) if r.job_id == job_id]
            yield from (request for request in theirs if peer.may_see(request.owner))
