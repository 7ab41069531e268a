"""Each rule of the scheduler's docstring by an example.

Times are plain numbers: the scheduler has no clock.
"""

import math
from typing import Any

import pytest

from asrd.errors import Code
from asrd.front.scheduling.actions import (
    Abandon,
    Accept,
    Action,
    Failure,
    Finish,
    Prefetch,
    Refuse,
    Start,
    Wake,
)
from asrd.front.scheduling.fairqueue import Job, Limits
from asrd.front.scheduling.needs import Needs, Skills
from asrd.front.scheduling.scheduler import Scheduler, UnknownKey
from asrd.front.scheduling.workers import WorkerState
from tests.support.counting import calls_of

CANCELLED = Failure(Code.CANCELLED, "the client left")
NO_MEMORY = Failure(Code.OUT_OF_MEMORY, "no memory")


def scheduler(*ready: str, **limits: Any) -> Scheduler:
    """With workers of those names ready for the model `tiny`."""
    made = Scheduler(Limits(**limits))
    for name in ready:
        made.worker_added(name, 0.0)
        made.worker_ready(name, "tiny", 1, 0.0)
    return made


def job(uid: int = 1, **fields: Any) -> Job:
    return Job(uid, 0.0, **fields)


def told(actions: list[Action]) -> list[str]:
    """The actions' kinds, with the code of those that end a job badly."""
    found = []
    for action in actions:
        outcome = getattr(action, "outcome", getattr(action, "failure", None))
        code = f" {outcome.code}" if isinstance(outcome, Failure) else ""
        found.append(type(action).__name__ + code)
    return found


# --- the life of a job --------------------------------------------------------------------------


def test_a_job_is_accepted_started_and_finished() -> None:
    it, mine = scheduler("0"), job()
    assert repr(it) == "<Scheduler queue=0 [0:ready:0]>"
    assert it.submit(mine, 1.0) == [Accept(mine, 0), Start(mine, "0", 1)]
    assert repr(it) == "<Scheduler queue=0 [0:ready:1]>"
    assert list(it.running()) == [mine]
    assert not it.idle
    assert it.job_done("0", 1, "text", 2.0) == [Finish(mine, "text")]
    assert (mine.attempts, mine.worker, mine.started_at) == (1, "0", 1.0)
    assert it.idle
    assert repr(it) == "<Scheduler queue=0 [0:ready:0]>"


def test_rule_1_a_job_goes_to_whichever_worker_is_free_when_it_is_free() -> None:
    it = scheduler("0", "1", queue_max=5)
    first, second, third = job(), job(), job()
    assert told(it.submit(first, 0.0)) == ["Accept", "Start"]
    assert it.submit(second, 0.0)[1] == Start(second, "1", 2)
    assert it.submit(third, 0.0) == [Accept(third, 0)]
    assert repr(it) == "<Scheduler queue=1 [0:ready:1 1:ready:1]>"
    assert it.job_done("1", 2, "text", 1.0) == [Finish(second, "text"), Start(third, "1", 3)]


def test_rule_1_a_job_waits_while_no_worker_is_ready_and_starts_once_one_is() -> None:
    it, mine = scheduler(), job()
    it.worker_added("0", 0.0)
    assert told(it.submit(mine, 0.0)) == ["Accept"]
    assert it.worker_loading("0", 1.0) == []
    assert repr(it) == "<Scheduler queue=1 [0:loading:0]>"
    assert it.worker_ready("0", "tiny", 1, 2.0) == [Start(mine, "0", 1)]


def test_rule_1_every_slot_of_a_worker_is_used() -> None:
    it = scheduler(queue_max=5)
    it.worker_added("0", 0.0)
    jobs = [job() for _ in range(4)]
    for one in jobs:
        it.submit(one, 0.0)
    assert told(it.worker_ready("0", "tiny", 3, 1.0)) == ["Start", "Start", "Start"]
    assert repr(it) == "<Scheduler queue=1 [0:ready:3]>"


def test_rule_2_one_users_flood_delays_another_by_the_running_job_alone() -> None:
    it = scheduler("0", queue_max=10)
    for _ in range(5):
        it.submit(job(uid=1), 0.0)
    quiet = job(uid=2)
    it.submit(quiet, 0.0)
    assert it.job_done("0", 1, "text", 1.0)[1] == Start(quiet, "0", 2)


def test_rule_3_past_the_bound_a_job_is_busy_and_told_when_to_come_again() -> None:
    it = scheduler("0", queue_max=1)
    it.submit(job(), 0.0)
    it.submit(job(), 0.0)
    third = job()
    failure = Failure(Code.BUSY, "the queue is full (1 of 1 jobs wait)", retry_after_ms=1000)
    assert it.submit(third, 0.0) == [Refuse(third, failure)]
    assert len(it.queue) == 1


def test_rule_3_a_queue_of_none_still_lets_a_free_worker_take_a_job() -> None:
    it = scheduler("0", queue_max=0)
    assert told(it.submit(job(), 0.0)) == ["Accept", "Start"]
    assert told(it.submit(job(), 0.0)) == ["Refuse busy"]


def test_rule_3_a_job_whose_worker_died_waits_at_the_head_and_over_the_bound() -> None:
    it = scheduler("0", queue_max=1)
    first, second = job(), job()
    it.submit(first, 0.0)
    it.submit(second, 0.0)
    assert it.worker_lost("0", "it died", 1.0) == []
    assert list(it.queue) == [first, second]
    assert it.retried == 1
    assert it.worker_ready("0", "tiny", 1, 2.0) == [Start(first, "0", 2, alone=True)]
    assert first.attempts == 2


def test_rule_3_a_second_death_ends_the_job() -> None:
    it, mine = scheduler("0"), job()
    it.submit(mine, 0.0)
    it.worker_lost("0", "it died", 1.0)
    it.worker_ready("0", "tiny", 1, 2.0)
    (finish,) = it.worker_lost("0", "killed by SIGSEGV", 3.0)
    text = "its worker died each time it was tried (2); last: killed by SIGSEGV"
    assert finish == Finish(mine, Failure(Code.WORKER_CRASHED, text))


def test_rule_3_a_retry_goes_to_another_worker_at_once() -> None:
    it, mine = scheduler("0", "1"), job()
    it.submit(mine, 0.0)
    assert it.worker_lost("0", "it died", 1.0) == [Start(mine, "1", 2, alone=True)]


def test_rule_4_an_answer_under_a_foreign_key_is_a_breach() -> None:
    it, mine = scheduler("0", "1"), job()
    it.submit(mine, 0.0)
    for name, key in (("0", 2), ("1", 1), ("0", 0)):
        with pytest.raises(UnknownKey, match=f"worker {name} answered for job {key}, which it"):
            it.job_done(name, key, "stolen", 1.0)
        with pytest.raises(UnknownKey):
            it.job_failed(name, key, NO_MEMORY, 1.0)
    assert list(it.running()) == [mine]


def test_rule_4_a_late_answer_is_not_taken_for_the_retrys() -> None:
    it, mine = scheduler("0"), job()
    it.submit(mine, 0.0)
    it.worker_lost("0", "it died", 1.0)
    it.worker_ready("0", "tiny", 1, 2.0)
    with pytest.raises(UnknownKey):
        it.job_done("0", 1, "late", 3.0)
    assert it.job_done("0", 2, "text", 4.0) == [Finish(mine, "text")]


def test_rule_5_a_cancelled_job_ends_at_once_and_keeps_its_slot_until_the_worker_answers() -> None:
    it = scheduler("0")
    first, second = job(), job()
    it.submit(first, 0.0)
    assert it.end(first, CANCELLED, 1.0) == [Abandon("0", 1), Finish(first, CANCELLED)]
    assert it.idle
    assert told(it.submit(second, 1.0)) == ["Accept"]
    assert repr(it) == "<Scheduler queue=1 [0:ready:1]>"
    assert it.job_failed("0", 1, CANCELLED, 2.0) == [Start(second, "0", 2)]


def test_rule_5_a_waiting_job_is_cancelled_without_a_word_to_any_worker() -> None:
    it = scheduler("0")
    it.submit(job(), 0.0)
    waiting = job()
    it.submit(waiting, 0.0)
    assert it.end(waiting, CANCELLED, 1.0) == [Finish(waiting, CANCELLED)]
    assert it.end(waiting, CANCELLED, 1.0) == []
    assert len(it.queue) == 0


def test_rule_5_a_worker_that_dies_with_an_abandoned_job_is_free_again_once_it_is_ready() -> None:
    it, gone = scheduler("0"), job()
    it.submit(gone, 0.0)
    it.end(gone, CANCELLED, 0.0)
    assert it.worker_lost("0", "it died", 1.0) == []
    it.worker_ready("0", "tiny", 1, 2.0)
    assert told(it.submit(job(), 3.0)) == ["Accept", "Start"]


@pytest.mark.parametrize("state", [WorkerState.FAILED, WorkerState.DOWN])
def test_rule_6_no_job_waits_for_a_worker_that_cannot_serve(state: WorkerState) -> None:
    it, mine = scheduler("0"), job()
    it.submit(mine, 0.0)
    waiting = job()
    it.submit(waiting, 0.0)
    text = "no worker can serve: worker 0: no such model"
    unavailable = Failure(Code.UNAVAILABLE, text)
    assert it.worker_failed("0", state, "no such model", 1.0) == [
        Finish(mine, unavailable),
        Finish(waiting, unavailable),
    ]
    late = job()
    assert it.submit(late, 2.0) == [Refuse(late, unavailable)]


def test_rule_6_only_readiness_ends_failure() -> None:
    it = scheduler("0")
    it.worker_failed("0", WorkerState.FAILED, "no such model", 1.0)
    it.worker_loading("0", 2.0)
    it.worker_lost("0", "it died", 2.0)
    it.worker_left("0", False, 3.0)
    assert repr(it) == "<Scheduler queue=0 [0:failed:0]>"
    it.worker_ready("0", "tiny", 1, 4.0)
    assert it.workers["0"].reason is None
    assert told(it.submit(job(), 5.0)) == ["Accept", "Start"]


def test_rule_6_jobs_wait_for_the_worker_that_still_may_serve() -> None:
    it = scheduler("0", "1")
    it.worker_failed("0", WorkerState.FAILED, "no such model", 0.0)
    it.worker_lost("1", "it died", 0.0)
    assert told(it.submit(job(), 1.0)) == ["Accept"]


# --- rule 7: spare workers ------------------------------------------------------------------------


def with_spare() -> Scheduler:
    """Worker 0, and a spare for it."""
    it = scheduler("0", "spare", queue_max=5)
    it.worker_ready("spare", "tiny", 1, 0.0, spare=True)
    return it


def test_rule_7_a_spare_gets_nothing_while_another_worker_is_ready() -> None:
    it, first, second = with_spare(), job(), job()
    it.submit(first, 0.0)
    assert it.submit(second, 0.0) == [Accept(second, 0)]
    assert it.job_done("0", 1, "text", 1.0) == [Finish(first, "text"), Start(second, "0", 2)]


def test_rule_7_a_spare_takes_over_at_once_and_steps_back() -> None:
    it, first, second, third = with_spare(), job(), job(), job()
    it.submit(first, 0.0)
    it.submit(second, 0.0)
    assert it.worker_lost("0", "it died", 1.0) == [Start(first, "spare", 2, alone=True)]
    it.worker_ready("0", "tiny", 1, 2.0)
    assert it.workers["0"].jobs
    assert it.job_done("spare", 2, "text", 3.0) == [Finish(first, "text")]
    assert it.submit(third, 3.0) == [Accept(third, 0)]


def test_rule_7_a_spare_does_not_stand_in_for_another_model() -> None:
    it = scheduler("0", "spare", queue_max=5)
    it.worker_ready("spare", "large", 1, 0.0, spare=True)
    mine = job(needs=Needs("large"))
    assert it.submit(mine, 0.0)[1] == Start(mine, "spare", 1)


def test_rule_7_a_full_queue_is_full_though_a_spare_is_idle() -> None:
    it = scheduler("0", "spare", queue_max=0)
    it.worker_ready("spare", "tiny", 1, 0.0, spare=True)
    assert told(it.submit(job(), 0.0)) == ["Accept", "Start"]
    assert told(it.submit(job(), 0.0)) == ["Refuse busy"]


# --- rule 8: reading ahead ------------------------------------------------------------------------


def prefetching(*names: str, **limits: Any) -> Scheduler:
    it = scheduler(*names, **{"queue_max": 5, **limits})
    for name in names:
        it.worker_ready(name, "tiny", 1, 0.0, can_prefetch=True)
    return it


def test_rule_8_a_busy_worker_reads_the_next_job_and_starts_it_under_the_same_key() -> None:
    it, first, second, third = prefetching("0"), job(), job(), job()
    it.submit(first, 0.0)
    assert it.submit(second, 0.0) == [Accept(second, 0), Prefetch(second, "0", 2)]
    assert it.submit(third, 0.0) == [Accept(third, 1)]
    assert len(it.queue) == 2
    assert it.job_done("0", 1, "text", 1.0) == [
        Finish(first, "text"),
        Start(second, "0", 2, prefetched=True),
        Prefetch(third, "0", 3),
    ]
    assert it.prefetched == 1


def test_rule_8_the_worker_that_began_first_reads_what_is_next() -> None:
    it = prefetching("0", "1")
    it.submit(job(), 0.0)
    it.submit(job(), 1.0)
    it.job_done("0", 1, "text", 2.0)
    it.submit(job(), 3.0)
    fourth = job()
    assert it.submit(fourth, 4.0)[1] == Prefetch(fourth, "1", 4)


def test_rule_8_a_job_starts_where_a_worker_is_free_whoever_has_read_it() -> None:
    it, waiting = prefetching("0", "1"), job()
    it.submit(job(), 0.0)
    it.submit(job(), 1.0)
    assert it.submit(waiting, 2.0)[1] == Prefetch(waiting, "0", 3)
    assert it.job_done("1", 2, "text", 3.0)[1:] == [Abandon("0", 3), Start(waiting, "1", 4)]


def test_rule_8_a_spare_that_is_no_longer_needed_reads_nothing_ahead() -> None:
    it, waiting = prefetching("0", "spare"), job()
    it.worker_ready("spare", "tiny", 1, 0.0, spare=True, can_prefetch=True)
    it.worker_lost("0", "it died", 0.0)
    it.submit(job(), 1.0)
    it.worker_ready("0", "tiny", 1, 2.0, can_prefetch=True)
    it.submit(job(), 3.0)
    assert it.submit(waiting, 4.0)[1:] == [Prefetch(waiting, "0", 3)]


def test_rule_8_what_was_read_keeps_its_place_and_its_clock() -> None:
    it, waiting = prefetching("0", max_wait_seconds=10.0), job()
    it.submit(job(), 0.0)
    it.submit(waiting, 1.0)
    assert it.next_deadline() == 11.0
    assert it.tick(11.0)[0] == Abandon("0", 2)
    with pytest.raises(UnknownKey):
        it.job_done("0", 2, "text", 12.0)


def test_rule_8_what_was_read_waits_for_another_worker_when_its_reader_dies() -> None:
    it, first, second = prefetching("0"), job(), job()
    it.submit(first, 0.0)
    it.submit(second, 0.0)
    it.worker_lost("0", "it died", 1.0)
    assert second.attempts == 0
    # The first is on its last attempt: whatever kills it now was itself.
    assert it.worker_ready("0", "tiny", 1, 2.0, can_prefetch=True) == [
        Start(first, "0", 3, alone=True)
    ]
    assert it.job_done("0", 3, "text", 3.0) == [Finish(first, "text"), Start(second, "0", 4)]


def test_rule_8_what_a_worker_died_beside_is_never_read_ahead_again() -> None:
    it, suspect = prefetching("0"), job()
    it.submit(job(), 0.0)
    it.submit(suspect, 0.0)
    it.worker_lost("0", "it died", 1.0)
    it.worker_ready("0", "tiny", 1, 2.0, can_prefetch=True)
    it.submit(job(uid=2), 2.0)
    actions = it.job_done("0", 3, "text", 3.0)
    assert "Prefetch" not in told(actions)


def test_rule_8_a_retry_puts_down_what_its_worker_has_read() -> None:
    it = prefetching("0", "1")
    first, second, third = job(), job(), job()
    it.submit(first, 0.0)
    it.submit(second, 1.0)
    it.submit(third, 2.0)
    it.worker_lost("1", "it died", 3.0)
    assert it.job_done("0", 1, "text", 4.0) == [
        Finish(first, "text"),
        Abandon("0", 3),
        Start(second, "0", 4, alone=True),
    ]


# --- deadlines ----------------------------------------------------------------------------------


def test_a_job_that_waited_too_long_ends_in_phase_queue() -> None:
    it, mine = scheduler(max_wait_seconds=30.0), job()
    it.worker_added("0", 0.0)
    it.submit(mine, 0.0)
    assert it.next_deadline() == 30.0
    assert it.tick(29.9) == []
    text = "it waited 30.0 s, longer than allowed"
    failure = Failure(Code.DEADLINE_EXCEEDED, text, phase="queue")
    assert it.tick(30.0) == [Finish(mine, failure)]
    assert it.next_deadline() == math.inf


def test_a_job_that_ran_too_long_ends_in_phase_run_and_its_worker_is_told() -> None:
    it, mine = scheduler("0", max_run_seconds=60.0), job()
    it.submit(mine, 5.0)
    assert it.next_deadline() == 65.0
    failure = Failure(Code.DEADLINE_EXCEEDED, "it ran 60.0 s, longer than allowed", phase="run")
    assert it.tick(65.0) == [Abandon("0", 1), Finish(mine, failure)]


def test_any_event_ends_what_is_overdue() -> None:
    it, mine = scheduler(max_wait_seconds=30.0), job()
    it.worker_added("0", 0.0)
    it.submit(mine, 0.0)
    assert told(it.worker_ready("0", "tiny", 1, 31.0)) == ["Finish deadline-exceeded"]


def test_a_jobs_own_timeout_bounds_wait_and_run_from_its_arrival() -> None:
    it = scheduler("0", max_wait_seconds=30.0)
    running, waiting = job(timeout=100.0), job(timeout=90.0)
    it.submit(running, 1.0)
    it.submit(waiting, 1.0)
    assert it.next_deadline() == 90.0
    assert told(it.tick(90.0)) == ["Finish deadline-exceeded"]
    assert told(it.tick(100.0)) == ["Abandon", "Finish deadline-exceeded"]


def test_a_retry_waits_as_long_as_the_jobs_own_timeout_says() -> None:
    it, mine = scheduler("0", max_wait_seconds=30.0), job(timeout=100.0)
    it.submit(mine, 0.0)
    it.worker_lost("0", "it died", 10.0)
    assert it.next_deadline() == 100.0


def test_a_retry_may_wait_again_for_as_long_as_any_job() -> None:
    it, mine = scheduler("0", max_wait_seconds=30.0), job()
    it.submit(mine, 0.0)
    it.worker_lost("0", "it died", 10.0)
    assert it.next_deadline() == 40.0


# --- who can be had -----------------------------------------------------------------------------


def test_without_any_worker_a_job_is_unavailable() -> None:
    mine = job()
    failure = Failure(Code.UNAVAILABLE, "no worker is configured")
    assert scheduler().submit(mine, 0.0) == [Refuse(mine, failure)]


def test_a_model_that_no_worker_has_is_not_found() -> None:
    it, mine = scheduler("0", "1"), job(needs=Needs("large"))
    text = "name: no worker has the model 'large'; there is: tiny"
    assert it.submit(mine, 0.0) == [Refuse(mine, Failure(Code.MODEL_NOT_FOUND, text))]


def test_a_worker_that_never_loaded_may_turn_out_to_have_the_model() -> None:
    it, mine = scheduler(), job(needs=Needs("large"))
    it.worker_added("0", 0.0)
    assert told(it.submit(mine, 0.0)) == ["Accept"]
    assert told(it.worker_ready("0", "tiny", 1, 1.0)) == ["Finish model-not-found"]


def test_a_job_runs_on_the_worker_that_has_its_model() -> None:
    it, mine = scheduler("0", "1"), job(needs=Needs("large"))
    it.worker_ready("1", "large", 1, 0.0)
    assert it.submit(mine, 0.0)[1] == Start(mine, "1", 1)


def test_a_retired_worker_ends_its_job_and_gets_no_other() -> None:
    it = scheduler("0", queue_max=5)
    running, waiting = job(), job()
    it.submit(running, 0.0)
    it.submit(waiting, 0.0)
    text = "no worker can serve: worker 0: its socket is gone"
    assert it.worker_retired("0", 1.0) == [Finish(waiting, Failure(Code.UNAVAILABLE, text))]
    assert told(it.submit(job(), 1.0)) == ["Refuse unavailable"]
    assert it.job_done("0", 1, "text", 2.0) == [Finish(running, "text")]
    assert it.worker_removed("0", 2.0) == []
    assert repr(it) == "<Scheduler queue=0 []>"


def test_a_retired_worker_that_comes_back_serves_on() -> None:
    it = scheduler("0")
    it.worker_retired("0", 1.0)
    it.worker_added("0", 2.0)
    assert told(it.submit(job(), 2.0)) == ["Accept", "Start"]


@pytest.mark.parametrize("how", ["lost", "left", "fatal"])
def test_what_only_a_retired_worker_could_have_retried_ends_at_once(how: str) -> None:
    it = scheduler("0")
    it.submit(job(), 0.0)
    it.worker_retired("0", 1.0)
    actions = {
        "lost": lambda: it.worker_lost("0", "it died", 2.0),
        "left": lambda: it.worker_left("0", False, 2.0),
        "fatal": lambda: it.job_failed("0", 1, NO_MEMORY, 2.0, fatal=True),
    }[how]()
    assert told(actions) == ["Finish unavailable"]


def test_jobs_on_a_removed_worker_are_retried_elsewhere() -> None:
    it, mine = scheduler("0", "1"), job()
    it.submit(mine, 0.0)
    assert it.worker_removed("0", 1.0) == [Start(mine, "1", 2, alone=True)]


# --- how a worker may end -----------------------------------------------------------------------


def test_a_failed_job_is_not_retried_and_its_worker_goes_on() -> None:
    it, mine = scheduler("0"), job()
    it.submit(mine, 0.0)
    assert it.job_failed("0", 1, NO_MEMORY, 1.0) == [Finish(mine, NO_MEMORY)]
    assert told(it.submit(job(), 2.0)) == ["Accept", "Start"]


def test_a_fatal_failure_counts_as_a_crash() -> None:
    it, mine = scheduler("0", max_attempts=2), job()
    it.submit(mine, 0.0)
    assert it.job_failed("0", 1, NO_MEMORY, 1.0, fatal=True) == []
    assert repr(it) == "<Scheduler queue=1 [0:starting:0]>"
    it.worker_ready("0", "tiny", 1, 2.0)
    assert told(it.job_failed("0", 2, NO_MEMORY, 3.0, fatal=True)) == ["Finish worker-crashed"]


def test_a_job_on_its_way_to_a_worker_that_left_has_not_been_tried() -> None:
    it, mine = scheduler("0"), job()
    it.submit(mine, 0.0)
    it.worker_left("0", False, 1.0)
    assert (mine.attempts, it.retried, list(it.queue)) == (0, 0, [mine])


def test_job_that_its_worker_returns_again_and_again_still_reaches_its_deadline() -> None:
    it, mine = scheduler("0", max_wait_seconds=30), job()
    it.submit(mine, 0.0)
    for now in (10.0, 20.0):
        it.worker_left("0", False, now)
        it.worker_ready("0", "tiny", 1, now)
    it.worker_left("0", False, 29.0)
    assert told(it.tick(30.0)) == ["Finish deadline-exceeded"]


def test_a_sleeper_is_woken_for_a_job() -> None:
    it, mine = scheduler("0"), job()
    it.worker_left("0", True, 0.0)
    assert repr(it) == "<Scheduler queue=0 [0:asleep:0]>"
    assert it.submit(mine, 1.0) == [Accept(mine, 0), Wake("0")]
    assert repr(it) == "<Scheduler queue=1 [0:starting:0]>"
    assert it.worker_ready("0", "tiny", 1, 2.0) == [Start(mine, "0", 1)]


def test_no_sleeper_is_woken_for_a_job_that_is_served_without() -> None:
    it = scheduler("0", "1")
    it.worker_left("1", True, 0.0)
    assert told(it.submit(job(), 1.0)) == ["Accept", "Start"]


def test_one_sleeper_is_woken_for_each_waiting_job_and_only_if_it_has_the_model() -> None:
    it = scheduler("0", "1", "2", queue_max=5)
    it.worker_ready("0", "large", 1, 0.0)
    for name in "012":
        it.worker_left(name, True, 0.0)
    assert it.submit(job(needs=Needs("tiny")), 1.0)[1:] == [Wake("1")]


def test_where_nobody_may_wait_a_refused_job_wakes_the_sleeper_for_its_next_try() -> None:
    it = scheduler("0", queue_max=0)
    it.worker_left("0", True, 0.0)
    assert told(it.submit(job(), 1.0)) == ["Refuse busy", "Wake"]
    it.worker_ready("0", "tiny", 1, 2.0)
    assert told(it.submit(job(), 3.0)) == ["Accept", "Start"]


# --- the rest -----------------------------------------------------------------------------------


def test_draining_takes_nothing_more_and_ends_what_was_accepted() -> None:
    it, mine = scheduler("0"), job()
    it.submit(mine, 0.0)
    it.drain(0.0)
    late = job()
    failure = Failure(Code.SHUTTING_DOWN, "asrd is shutting down", retry_after_ms=1000)
    assert it.submit(late, 1.0) == [Refuse(late, failure)]
    assert not it.idle
    it.job_done("0", 1, "text", 2.0)
    assert it.idle


def test_draining_waits_for_no_job_longer_than_any_job_may_wait() -> None:
    it = scheduler("0", queue_max=5, max_wait_seconds=10.0)
    running, hurried, patient = job(), job(), job(timeout=5000.0)
    it.submit(running, 0.0)
    it.submit(hurried, 4.0)
    it.submit(patient, 4.0)
    it.drain(6.0)
    assert it.next_deadline() == 14.0
    assert told(it.tick(14.0)) == ["Finish deadline-exceeded"]
    assert it.next_deadline() == 16.0
    it.worker_lost("0", "it died", 15.0)
    assert told(it.tick(16.0)) == ["Finish deadline-exceeded"]
    assert told(it.tick(25.0)) == ["Finish deadline-exceeded"]
    assert it.idle


def test_who_is_refused_is_told_of_recent_runs_and_of_the_number_of_slots() -> None:
    it, refused = scheduler("0", queue_max=0), job()
    for number in range(1, 40):
        it.submit(job(), 10.0 * number)
        it.job_done("0", number, "text", 10.0 * number + 4.0)
    assert it.retry_after_ms(refused, 500.0) == pytest.approx(4000, rel=0.01)
    it.worker_added("1", 500.0)
    it.worker_ready("1", "tiny", 1, 500.0)
    assert it.retry_after_ms(refused, 500.0) == pytest.approx(2000, rel=0.01)
    it.worker_lost("0", "it died", 501.0)
    it.worker_lost("1", "it died", 501.0)
    assert it.retry_after_ms(job(uid=2), 501.0) == pytest.approx(4000, rel=0.01)


def test_an_idle_worker_with_another_model_shortens_no_line() -> None:
    it = scheduler("0", "1", queue_max=0)
    it.worker_ready("1", "large", 1, 0.0)
    assert told(it.submit(job(needs=Needs("tiny")), 0.0)) == ["Accept", "Start"]
    later = []
    for _ in range(4):
        (refuse,) = it.submit(job(needs=Needs("tiny")), 0.0)
        assert isinstance(refuse, Refuse)
        later.append(refuse.failure.retry_after_ms)
    assert later == [1000, 1333, 1667, 2000]


@pytest.mark.parametrize("other_model", ["tiny", "large"])
def test_a_job_costs_the_same_however_many_wait(other_model: str) -> None:
    """Also where another worker is free and has the wrong model for all that wait."""

    def cost(length: int) -> int:
        it = scheduler("0", "1", queue_max=100_000)
        it.worker_ready("1", other_model, 1, 0.0)
        for number in range(length):
            it.submit(job(uid=number % 7, needs=Needs("tiny")), 0.0)
        (running,) = it.workers["0"].jobs
        return calls_of(lambda: it.job_done("0", running, "text", 1.0))

    assert cost(5000) <= cost(10)


# --- rule 9: models that differ in what they can do -----------------------------------------------

ENGLISH = Skills(frozenset({"en"}), translate=False)
MANY = Skills(frozenset({"en", "de"}))
GERMAN, ANY = Needs(language="de"), Needs()


def mixed(**limits: Any) -> Scheduler:
    """Worker 0 is English-only, worker 1 multilingual; both are ready."""
    made = scheduler("0", "1", **limits)
    made.worker_ready("0", "tiny.en", 1, 0.0, skills=ENGLISH)
    made.worker_ready("1", "base", 1, 0.0, skills=MANY)
    return made


@pytest.mark.parametrize(
    ("needs", "worker"),
    [
        (GERMAN, "1"),
        (Needs(translate=True), "1"),
        (Needs(language="en"), "0"),
        (ANY, "1"),
        (Needs("tiny.en"), "0"),
        (Needs("BASE"), "1"),
    ],
)
def test_rule_9_a_job_goes_to_a_worker_that_can_do_it(needs: Needs, worker: str) -> None:
    it, mine = mixed(), job(needs=needs)
    assert it.submit(mine, 1.0)[1] == Start(mine, worker, 1)


@pytest.mark.parametrize("needs", [GERMAN, ANY])
def test_rule_9_it_waits_for_the_better_one_while_that_is_hopeful(needs: Needs) -> None:
    it, first, second = mixed(queue_max=5), job(needs=needs), job(needs=needs)
    it.submit(first, 1.0)
    assert told(it.submit(second, 1.0)) == ["Accept"]
    # It died, and the next process loads: what was known of it still holds.
    assert told(it.worker_lost("1", "it died", 2.0)) == []
    assert told(it.worker_loading("1", 3.0)) == []
    ready = it.worker_ready("1", "base", 1, 4.0, skills=MANY)
    assert ready == [Start(first, "1", 2, alone=True)]


def test_rule_9_without_a_language_it_goes_to_another_once_the_better_one_is_not() -> None:
    it, german, any_language = mixed(queue_max=5), job(needs=GERMAN), job()
    it.worker_lost("1", "it died", 0.0)
    it.submit(german, 1.0)
    assert told(it.submit(any_language, 1.0)) == ["Accept"]
    actions = it.worker_failed("1", WorkerState.FAILED, "no memory", 2.0)
    assert told(actions) == ["Finish unavailable", "Start"]
    assert actions[1] == Start(any_language, "0", 1)


def test_rule_9_a_sleeper_is_woken_rather_than_another_one_taken() -> None:
    it = mixed()
    it.worker_left("1", True, 0.0)
    assert it.submit(job(needs=ANY), 1.0)[1:] == [Wake("1")]


def test_rule_9_a_worker_that_says_what_its_files_say_is_waited_for() -> None:
    it = scheduler("0")
    it.worker_ready("0", "tiny.en", 1, 0.0, skills=ENGLISH)
    it.worker_added("1", 0.0)
    # Nothing is known of worker 1 yet: it may speak German, but is not preferred.
    german, early, late = job(needs=GERMAN), job(uid=2), job(uid=3)
    assert told(it.submit(german, 0.0)) == ["Accept"]
    assert it.submit(early, 0.0)[1] == Start(early, "0", 1)
    it.job_done("0", 1, "text", 1.0)
    it.worker_loading("1", 1.0, "base", MANY)
    it.end(german, CANCELLED, 1.0)
    assert told(it.submit(late, 2.0)) == ["Accept"]
    assert it.worker_loading("1", 3.0, "tiny.en", ENGLISH) == [Start(late, "0", 2)]


@pytest.mark.parametrize(
    ("needs", "code", "text"),
    [
        (
            Needs(language="fr"),
            Code.BAD_REQUEST,
            "language: no worker's model knows 'fr' (they know de, en)",
        ),
        (
            Needs("tiny.en", "de"),
            Code.BAD_REQUEST,
            "language: no worker's model knows 'de' (they know en)",
        ),
        (
            Needs("tiny.en", translate=True),
            Code.BAD_REQUEST,
            "task: no worker's model can translate: English-only models can't",
        ),
        (Needs("large"), Code.MODEL_NOT_FOUND, "name: no worker has the model 'large'; there is: "),
    ],
)
def test_rule_9_if_no_worker_can_the_field_is_named(needs: Needs, code: Code, text: str) -> None:
    (refuse,) = mixed().submit(job(needs=needs), 1.0)
    assert isinstance(refuse, Refuse)
    assert refuse.failure.code is code
    assert refuse.failure.text.startswith(text)


def test_rule_9_word_timestamps_are_a_skill_too() -> None:
    it = mixed()
    without = Skills(frozenset({"en", "de"}), word_timestamps=False)
    it.worker_ready("1", "base", 1, 0.0, skills=without)
    mine = job(needs=Needs(word_timestamps=True))
    assert it.submit(mine, 1.0)[1] == Start(mine, "0", 1)
    (refuse,) = it.submit(job(needs=Needs("base", word_timestamps=True)), 1.0)
    assert isinstance(refuse, Refuse)
    assert refuse.failure.text == "word_timestamps: no worker's model has alignment_heads"


def test_rule_9_a_model_is_found_by_the_name_of_its_directory() -> None:
    it = scheduler("0")
    it.worker_ready("0", "/srv/models/Base/", 1, 0.0)
    for name in ("/srv/models/Base/", "/srv/models/base", "base", "BASE/"):
        assert told(it.submit(job(needs=Needs(name)), 1.0))[0] == "Accept"
        it.tick(1000.0)
    for name in ("models", "/other/base", "bas", ""):
        assert told(it.submit(job(needs=Needs(name)), 1.0)) == ["Refuse model-not-found"]


def test_rule_9_a_name_that_may_be_two_models_is_refused_unless_one_is_called_so() -> None:
    it = scheduler("0", "1", "2", queue_max=9)
    it.worker_ready("0", "/a/base", 1, 0.0)
    it.worker_ready("1", "/b/base", 1, 0.0)
    (refuse,) = it.submit(job(needs=Needs("base")), 1.0)
    assert isinstance(refuse, Refuse)
    text = "name: 'base' may be /a/base or /b/base: give the whole name"
    assert (refuse.failure.code, refuse.failure.text) == (Code.BAD_REQUEST, text)
    whole = job(needs=Needs("/b/base"))
    assert it.submit(whole, 1.0)[1] == Start(whole, "1", 1)
    it.worker_ready("2", "base", 1, 2.0)
    exact, waits = job(needs=Needs("base")), job(needs=Needs("base"))
    assert it.submit(exact, 2.0)[1] == Start(exact, "2", 2)
    assert told(it.submit(waits, 2.0)) == ["Accept"]


def test_rule_7_and_9_a_spare_with_other_skills_is_no_spare_for_those() -> None:
    it = scheduler("0", "1")
    it.worker_ready("0", "mine", 1, 0.0, skills=ENGLISH)
    it.worker_ready("1", "mine", 1, 0.0, spare=True, skills=MANY)
    mine = job(needs=ANY)
    assert it.submit(mine, 1.0)[1] == Start(mine, "1", 1)
