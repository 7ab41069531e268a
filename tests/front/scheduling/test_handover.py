"""The jobs of one scheduler become those of the next."""

from asrd.front.scheduling.actions import Start
from asrd.front.scheduling.handover import resume, suspend
from asrd.front.scheduling.scheduler import Scheduler
from tests.support.scheduling import job, scheduler


def test_jobs_keep_their_order_and_the_time_that_is_left() -> None:
    it, runs, first, own = scheduler("0", queue_max=5), job(), job(), job(timeout=60.0)
    for each in (runs, first, own):
        it.submit(each, 0.0)
    assert runs.worker == "0"
    jobs = suspend(it, 10.0)
    assert jobs == [runs, first, own]
    # Nothing starts any more.
    assert it.worker_ready("0", "base", 10.0) == []

    new = Scheduler(it.settings)
    for each in jobs:
        resume(new, each, 20.0)
    assert first.deadline == 20.0 + it.settings.max_wait_seconds - 10.0
    assert own.deadline == 60.0
    new.worker_added("0", 20.0)
    assert new.worker_ready("0", "base", 21.0)[0] == Start(runs, "0", 1)
    assert runs.attempts == 2
    # Those that had started count against no limit of the queue.
    assert len(new.queue) == 2
