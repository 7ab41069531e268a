"""Whether who asks little waits behind who asks much, by the daemon's own log of who ran when."""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from tests.soak.deaths import casualties

_DONE = re.compile(
    r"^(\S+ \S+) .*asrd(?:\[\d+\])?: done: .* waited ([\d.]+) s, ran ([\d.]+) s on worker \S+"
    r".* job_id=(\S+)(?= ).* peer_uid=(\d+)"
)
# The log is in milliseconds, and written a moment after.
_MOMENT = 0.05


class Turn(NamedTuple):
    """A job that waited and then ran; seconds since the epoch."""

    started: float
    arrived: float
    uid: int
    job: str


def turns(log: Iterable[str]) -> list[Turn]:
    """In order. Those that ran twice are left out: the log says only when they began again."""
    lines = [line for line in log if " asrd" in line]
    lost = casualties(lines)
    found = []
    for line in lines:
        if (done := _DONE.search(line)) and done[4] not in lost:
            at = datetime.strptime(done[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()
            started = at - float(done[3])
            found.append(Turn(started, started - float(done[2]), int(done[5]), done[4]))
    return sorted(found)


def unfair(turns: list[Turn], quiet: int, allowed: int) -> list[str]:
    """Where a job of the `quiet` user, who never has two, saw another user served more often than
    `allowed` while it waited. Who was served longest ago is next: once would do, and again for each
    worker that has its next job at hand."""
    found = []
    for mine in turns:
        if mine.uid != quiet:
            continue
        meanwhile = Counter(
            other.uid
            for other in turns
            if mine.arrived + _MOMENT < other.started < mine.started - _MOMENT
        )
        found += [
            f"user {uid} was served {number} times while job {mine.job} of user {quiet} waited "
            f"{mine.started - mine.arrived:.1f} s"
            for uid, number in meanwhile.items()
            if number > allowed and uid != quiet
        ]
    return found
