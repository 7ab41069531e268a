"""Check, by the daemon's log, that a user with few jobs does not wait behind a user with many."""

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
# The log's times are in milliseconds, and a moment late.
_MOMENT = 0.05


class Turn(NamedTuple):
    """A job that waited and then ran; seconds since the epoch."""

    started: float
    arrived: float
    uid: int
    job: str


def turns(log: Iterable[str]) -> list[Turn]:
    """The jobs in order of their start, without those that ran twice: the log has only the second
    start."""
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
    """The jobs of the `quiet` user, who never has two, during whose wait another user was served
    more than `allowed` times. The user served longest ago is next, so once is right; a retry goes
    before all others, so each worker that died allows one more."""
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
