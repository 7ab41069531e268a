"""Check, by the daemon's log, that a user with few jobs does not wait behind a user with many, or
with long ones."""

import re
from collections import Counter
from collections.abc import Container, Iterable
from datetime import datetime
from typing import NamedTuple

from asrd.wire.records import WINDOW_SECONDS
from tests.soak.deaths import losses

_DONE = re.compile(
    r"^(\S+ \S+) .*asrd(?:\[\d+\])?: done: ([\d.]+) s of audio, waited ([\d.]+) s, "
    r"ran ([\d.]+) s on worker \S+.* job_id=(\S+)(?= ).* peer_uid=(\d+)"
)
# The log's times are in milliseconds, and a moment late.
_MOMENT = 0.05


class Turn(NamedTuple):
    """A job of one window that waited and then ran; seconds since the epoch."""

    started: float
    arrived: float
    uid: int
    job: str


def turns(log: Iterable[str], retried: Container[str]) -> list[Turn]:
    """The short jobs in order of their start. Long ones have other places, and the log has only the
    last start of those that were `retried`."""
    lines = [line for line in log if " asrd" in line]
    lost = {loss.job for loss in losses(lines)}
    found = []
    for line in lines:
        if (done := _DONE.search(line)) is None or float(done[2]) > WINDOW_SECONDS:
            continue
        when, _, waited, ran, job, uid = done.groups()
        if job not in lost and job not in retried:
            at = datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").timestamp()
            started = at - float(ran)
            found.append(Turn(started, started - float(waited), int(uid), job))
    return sorted(found)


def unfair(turns: list[Turn], quiet: int, allowed: int) -> list[str]:
    """The jobs of the `quiet` user, who never has two, during whose wait another user was served
    more than `allowed` times. The user with the least work is next, so once is right: after it, the
    other has had more. A retry goes before all others, so each worker allows one more."""
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
