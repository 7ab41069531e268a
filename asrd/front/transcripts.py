"""The finished parts of the transcripts of jobs that run or wait, and the bound on their sum.

A job that another worker goes on with keeps what earlier attempts have finished.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from asrd.errors import Code
from asrd.front.request import Finished, Request, transcript
from asrd.front.scheduling.actions import Failure
from asrd.wire import frames
from asrd.wire.peer import User
from asrd.wire.worker_events import Done


class KeptText(Protocol):
    """The text of a live stream. `fail` ends its job."""

    user: User
    finished: Finished
    fail: Callable[[Failure], None]


Kept = Request | KeptText


class Transcripts:
    """The parts of all jobs, which take `limit` bytes at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept: set[Kept] = set()

    def add(self, kept: Kept, text: str, segments: Sequence[dict[str, Any]]) -> None:
        self.drop(kept)
        kept.finished.add(text, segments)
        self.size += kept.finished.size
        self._kept.add(kept)

    def drop(self, kept: Kept) -> None:
        """The client has its answer."""
        if kept in self._kept:
            self._kept.remove(kept)
            self.size -= kept.finished.size

    def excess(self) -> tuple[Kept, Failure] | None:
        """Returns the job that must end because all take too much: the largest of the user with the
        most. So one user's long transcripts end no other user's job."""
        if self.size <= self.limit:
            return None
        users: Counter[User] = Counter()
        for kept in self._kept:
            users[kept.user] += kept.finished.size
        ((user, _),) = users.most_common(1)
        theirs = (kept for kept in self._kept if kept.user == user)
        text = f"the unfinished transcripts take more than transcripts_max_bytes ({self.limit})"
        failure = Failure(Code.OUT_OF_MEMORY, f"{text}, and this job's user has the most")
        return max(theirs, key=lambda kept: kept.finished.size), failure


def answer_of(request: Request, done: Done, model: str | None, now: float) -> bytes | Failure:
    """Returns the data of the `transcript` event of a job that has ended, or why there is none."""
    answer = transcript(request, done, model, now)
    failure = too_large(len(answer))
    if failure is not None:
        return failure
    return answer if request.text is None else request.text.whole(answer)


def too_large(size: int) -> Failure | None:
    """Returns the failure of a transcript of so many bytes that no event can carry it."""
    limit = frames.MAX_TRANSCRIPT_DATA
    if size <= limit:
        return None
    return Failure(Code.TOO_LARGE, f"the transcript takes {size} bytes, over the limit of {limit}")
