"""The finished parts of the transcripts of jobs that run or wait, and the bound on their sum.

A job that another worker goes on with keeps what earlier attempts have finished.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from asrd.errors import Code
from asrd.front.request import Request
from asrd.front.scheduling.actions import Failure
from asrd.wire import frames
from asrd.wire.peer import User


class Transcripts:
    """The parts of all jobs, which take `limit` bytes at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._requests: set[Request] = set()

    def add(self, request: Request, text: str, segments: Sequence[dict[str, Any]]) -> None:
        before = request.finished.size
        request.finished.add(text, segments)
        self.size += request.finished.size - before
        self._requests.add(request)

    def drop(self, request: Request) -> None:
        """The request has its answer."""
        if request in self._requests:
            self._requests.remove(request)
            self.size -= request.finished.size

    def excess(self) -> tuple[Request, Failure] | None:
        """Returns the job that must end because all take too much: the largest of the user with the
        most. So one user's long transcripts end no other user's job."""
        if self.size <= self.limit:
            return None
        users: Counter[User] = Counter()
        for request in self._requests:
            users[request.job.user] += request.finished.size
        ((user, _),) = users.most_common(1)
        theirs = (request for request in self._requests if request.job.user == user)
        text = f"the unfinished transcripts take more than transcripts_max_bytes ({self.limit})"
        failure = Failure(Code.OUT_OF_MEMORY, f"{text}, and this job's user has the most")
        return max(theirs, key=lambda request: request.finished.size), failure


def too_large(size: int) -> Failure | None:
    """Returns the failure of a transcript of so many bytes that no event can carry it."""
    limit = frames.MAX_TRANSCRIPT_DATA
    if size <= limit:
        return None
    return Failure(Code.TOO_LARGE, f"the transcript takes {size} bytes, over the limit of {limit}")
