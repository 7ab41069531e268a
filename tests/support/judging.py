"""Jobs and faults of a campaign's ledger (tests.soak), for tests of its judge."""

from typing import Any

from tests.soak.ledger import Ledger
from tests.soak.oracle import Job, Kind, Limits

LIMITS = Limits(wait=20, slow_death=9, frame=5, stop=30, window=1)
PID = 4711


def innocent(ledger: Ledger, accepted: bool = False, **options: Any) -> Job:
    job = ledger.open(Kind.INNOCENT, "payload", "yes", **options)
    job.accepted = job.born if accepted else None
    return job


def strike(ledger: Ledger, *faults: str, pid: int = PID) -> None:
    """Records faults such as `SIGKILL to worker 0`."""
    for fault in faults:
        what, target = fault.split(" to ")
        ledger.fault(what, target, pid, lambda: None)
