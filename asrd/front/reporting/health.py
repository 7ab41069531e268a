"""The daemon's health: its state in a word, and its problems in a sentence each."""

from collections.abc import Iterator

from asrd.front.front import Front
from asrd.front.scheduling.scheduler import Scheduler
from asrd.front.scheduling.workers import Worker, WorkerState
from asrd.front.worker_info import WorkerInfo

# So many crashes of a worker in so many seconds are a crash loop.
_LOOP_CRASHES, _LOOP_SECONDS = 3, 60.0
# One job may fail by its own fault; so many in a row are the daemon's fault.
_FAILURES = 3
# A start that takes so many seconds is reported with its duration. A full queue is a problem once a
# job has waited for so long.
_LONG = 10.0
# Signs of life may be a little late: a worker is silent once so many are due.
_MISSED = 2.0


def state(front: Front, now: float) -> str:
    """Returns `ok` if all workers could serve a request now, `degraded` if some could,
    `unavailable` if none writes text, or none is left of those that only tell speakers apart."""
    workers = list(front.scheduler.workers.values())
    workers = [worker for worker in workers if not worker.skills.speakers] or workers
    serving = any(_serves(worker, front.connections[worker.name].info, now) for worker in workers)
    if front.scheduler.draining or not serving:
        return "unavailable"
    return "degraded" if problems(front, now) else "ok"


def problems(front: Front, now: float) -> list[str]:
    """Returns the problems that an admin should look at, one sentence each."""
    scheduler = front.scheduler
    found = ["asrd is shutting down"] if scheduler.draining else []
    if not scheduler.workers:
        found.append("no worker is configured")
    for worker in scheduler.workers.values():
        found += _of_worker(worker, front.connections[worker.name].info, now)
        crashes = front.crashes.since(worker.name, now - _LOOP_SECONDS)
        if crashes >= _LOOP_CRASHES:
            found.append(f"worker {worker.name} died {crashes} times within the last minute")
    found += _of_queue(scheduler, now)
    failures, since = front.metrics.failures_in_a_row, front.metrics.last_success
    if failures >= _FAILURES:
        ever = "yet" if since is None else f"for {now - since:.0f} s"
        found.append(f"no job has succeeded {ever}, {failures} failed")
    return found


def _of_queue(scheduler: Scheduler, now: float) -> Iterator[str]:
    """A full queue is ordinary for a moment, and so is one job that waits for its turn."""
    limit, waiting = scheduler.settings.queue_max, len(scheduler.queue)
    wait = now - (scheduler.queue.oldest_arrival() or now)
    if limit and waiting >= max(limit, 2) and wait >= _LONG:
        yield f"the queue is full ({waiting} of {limit}), and a job has waited for {wait:.0f} s"


def _serves(worker: Worker, info: WorkerInfo, now: float) -> bool:
    """Returns True if the worker runs a job, or would take one."""
    if worker.retired:
        return False
    if worker.state is WorkerState.ASLEEP:
        return info.loads
    alive = not _silent_seconds(worker, info, now) and not info.stalled_seconds
    return worker.state is WorkerState.READY and alive


def _silent_seconds(worker: Worker, info: WorkerInfo, now: float) -> float:
    """Returns for how long the worker has owed a sign of life (as a stopped process does), or 0."""
    if worker.state is not WorkerState.READY or info.alive_seconds is None:
        return 0.0
    silent = now - info.heard_at
    return silent if silent > _MISSED * info.alive_seconds else 0.0


def _of_worker(worker: Worker, info: WorkerInfo, now: float) -> Iterator[str]:
    name = f"worker {worker.name}"
    silent = _silent_seconds(worker, info, now)
    if worker.retired:
        yield f"{name} is being removed: its socket is gone"
    elif worker.state in (WorkerState.FAILED, WorkerState.DOWN):
        yield f"{name} is {worker.state}: {worker.reason}"
    elif worker.state in (WorkerState.STARTING, WorkerState.LOADING):
        seconds = 0.0 if info.expected_at is None else now - info.expected_at
        time = f" for {seconds:.0f} s" if seconds >= _LONG else ""
        yield f"{name} is {worker.state}{time}" + (f": {info.ended}" if info.ended else "")
    elif worker.state is WorkerState.ASLEEP and not info.loads:
        yield f"{name} is asleep, and has not been seen to load its model"
    elif silent:
        yield f"{name} has given no sign of life for {silent:.1f} s"
    elif info.stalled_seconds:
        yield f"{name} has a job that has made no progress for {info.stalled_seconds:.0f} s"
