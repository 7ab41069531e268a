"""The jobs that a peer may see, one by one, for `status` with `jobs`."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from asrd.front.scheduling.job import Job
from asrd.front.scheduling.scheduler import Scheduler
from asrd.wire.peer import Peer, named

# So that the answer stays small.
_MOST = 500


def job_list(scheduler: Scheduler, peer: Peer, now: float) -> list[dict[str, Any]]:
    """Returns the jobs that run, then those that wait."""
    return [_entry(job, now) for job in islice(_visible(scheduler, peer), _MOST)]


def _visible(scheduler: Scheduler, peer: Peer) -> Iterator[Job]:
    for jobs in (scheduler.running(), scheduler.queue):
        yield from (job for job in jobs if not job.step and peer.may_see(job.request.owner))


def _entry(job: Job, now: float) -> dict[str, Any]:
    return {
        "job_id": job.request.job_id,
        "user": named(job.user),
        "worker": job.worker,
        "age_ms": round((now - job.arrival) * 1000),
        "work_ms": round(job.work * 1000),
        "attempts": job.attempts,
        "audio_seconds_done": round(job.done, 3),
        "audio_seconds": round(job.seconds, 3) or None,
    }
