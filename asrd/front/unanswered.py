"""The requests that were accepted and have no answer yet, by user."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from asrd.fdsocket import Peer

if TYPE_CHECKING:
    from asrd.front.request import Request


class Unanswered:
    def __init__(self) -> None:
        # Dicts for sets that keep the order of arrival.
        self._of_user: dict[int, dict[Request, None]] = {}

    def add(self, request: "Request") -> None:
        self._of_user.setdefault(request.job.uid, {})[request] = None

    def remove(self, request: "Request") -> None:
        """Once it has its answer; one that was never accepted is none of them."""
        theirs = self._of_user.get(request.job.uid, {})
        theirs.pop(request, None)
        if not theirs:
            self._of_user.pop(request.job.uid, None)

    def count(self, uid: int) -> int:
        return len(self._of_user.get(uid, ()))

    def named(self, job_id: str, peer: Peer) -> Iterator["Request"]:
        """Those of that id that are this peer's business. Nobody's question takes longer for what
        other users have."""
        users = list(self._of_user) if peer.uid == 0 else [peer.uid]
        for uid in filter(peer.may_see, users):
            yield from [r for r in self._of_user.get(uid, ()) if r.job_id == job_id]
