"""Examples of the rules about jobs that share workers: places, blame, limits, fairness."""

from typing import Any

import pytest

from asrd.errors import Code
from asrd.front.scheduling.actions import Failure, Finish, Start
from asrd.front.scheduling.job import Job, Needs
from asrd.front.scheduling.scheduler import Scheduler
from tests.support.scheduling import (
    command,
    hour,
    job,
    kinds,
    refusal,
    scheduler,
    starts,
    turning,
)

CANCELLED = Failure(Code.CANCELLED, "the client disconnected")


# --- rule 2: turns ------------------------------------------------------------------------------


def test_rule_2_short_job_finds_a_place_beside_any_recordings() -> None:
    it = turning("0", slots=3)
    for uid in range(1, 5):
        it.submit(hour(uid), 0.0)
    assert sorted(it.workers["0"].jobs) == [1, 2]
    assert kinds(it.submit(command(9), 1.0)) == ["Start", "Accept"]
    assert kinds(it.submit(command(9), 1.0)) == ["Accept"]
    assert starts(it.job_done("0", 3, "text", 2.0)) == [(4, "0")]


def test_rule_2_one_user_has_one_recording_on_each_worker() -> None:
    it = turning("0", "1", slots=4)
    found = [starts(it.submit(hour(), 0.0)) for _ in range(3)]
    assert found == [[(1, "0")], [(2, "1")], []]
    # Others' recordings take turns with it.
    assert starts(it.submit(hour(2), 0.0)) == [(3, "0")]


def test_rule_2_recording_shares_with_as_few_as_possible() -> None:
    it = turning("0", "1", slots=4)
    it.submit(hour(1), 0.0)
    it.submit(command(2), 0.0)
    it.submit(command(2), 0.0)
    assert starts(it.submit(hour(3), 0.0)) == [(4, "1")]


def test_rule_2_short_jobs_that_turn_out_long_leave_a_place() -> None:
    it = turning("0", queue_max_per_user=0)
    for uid in (1, 2, 3):
        it.submit(job(uid, size=900_000), 0.0)
    assert sorted(it.workers["0"].jobs) == [1, 2]
    for key in (1, 2):
        it.job_state("0", key, 0.1, 0.0, 600.0, 1.0)
    # Twice as many as its slots; the last of them is no file of unknown length.
    assert sorted(it.workers["0"].jobs) == [1, 2, 3]
    it.job_state("0", 3, 0.1, 0.0, 600.0, 2.0)
    assert kinds(it.submit(job(4, size=900_000), 3.0)) == ["Accept"]
    assert kinds(it.submit(command(5), 3.0)) == ["Start", "Accept"]


def test_rule_2_one_users_files_of_unknown_length_fill_no_worker() -> None:
    it = turning("0", slots=4, queue_max_per_user=0)
    for _ in range(8):
        it.submit(job(1, size=900_000), 0.0)
    for key in (1, 2):
        it.job_state("0", key, 0.1, 0.0, 600.0, 1.0)
    assert len(it.workers["0"].jobs) <= 3
    assert kinds(it.submit(job(2, size=900_000), 2.0)) == ["Start", "Accept"]


def test_rule_2_one_users_small_files_take_no_other_users_place() -> None:
    """Its recording, and a file that turns out to be long, count as one."""
    it = turning("0", slots=4)
    it.submit(hour(1), 0.0)
    for _ in range(2):
        it.submit(job(1, size=900_000), 0.0)
    for key in it.workers["0"].jobs:
        it.job_state("0", key, 5.0, 60.0, 3600.0, 50.0)
    assert len(it.workers["0"].jobs) == 2
    for uid in (2, 3):
        assert kinds(it.submit(hour(uid), 100.0)) == ["Start", "Accept"]
    assert kinds(it.submit(command(4), 100.0)) == ["Start", "Accept"]


def test_lane_takes_no_long_recording_and_hands_back_one_that_it_finds() -> None:
    it = turning("0", "1")
    it.worker_ready("0", "tiny", 0.0, slots=1, max_audio_seconds=15.0)
    assert starts(it.submit(hour(), 0.0)) == [(1, "1")]
    file = job(2, size=500_000)
    assert starts(it.submit(file, 0.0)) == [(2, "0")]
    too_long = Failure(Code.TOO_LARGE, "audio: it is longer than 15 s")
    assert it.job_failed("0", 2, too_long, 1.0) == [Start(file, "1", 3)]
    it.worker_retired("1", 2.0)
    text = "audio: no worker takes recordings of more than 15 s"
    it.worker_removed("1", 2.0)
    assert refusal(it, hour(3)) == (Code.TOO_LARGE, text)


def test_lane_keeps_no_spare_from_long_recordings() -> None:
    it = turning("0", longest=30.0)
    it.worker_added("1", 0.0)
    it.worker_ready("1", "tiny", 0.0, spare=True, slots=2)
    assert starts(it.submit(hour(), 0.0)) == [(1, "1")]
    it.worker_ready("1", "tiny", 1.0, spare=True, slots=2, max_audio_seconds=30.0)
    assert starts(it.submit(command(), 1.0)) == [(2, "0")]


def test_free_lane_is_not_blocked_by_a_longer_job_of_its_user() -> None:
    it = turning("0", "1", slots=1)
    it.worker_ready("0", "tiny", 0.0, slots=1, max_audio_seconds=5.0)
    it.submit(command(2), 0.0)
    it.submit(command(2), 0.0)
    it.submit(job(3, seconds=20.0), 0.0)
    it.submit(command(3), 0.0)
    assert starts(it.job_done("0", 1, "text", 1.0)) == [(3, "0")]


# --- rule 9: blame --------------------------------------------------------------------------------


def crowded(**settings: Any) -> tuple[Scheduler, list[Job]]:
    it, jobs = turning("0", slots=4, **settings), [hour(1), hour(2), command(3)]
    for each in jobs:
        it.submit(each, 0.0)
    return it, jobs


def test_rule_9_job_in_turn_is_to_blame_and_comes_first() -> None:
    it, jobs = crowded()
    it.worker_lost("0", "it died", 1.0, turn=2)
    assert [each.deaths for each in jobs] == [0, 1, 0]
    assert list(it.queue) == [jobs[1], jobs[0], jobs[2]]
    it.worker_ready("0", "tiny", 2.0, slots=4)
    text = "the worker died in each of 2 attempts; the last time: it died"
    ends = it.worker_lost("0", "it died", 3.0, turn=jobs[1].key)
    assert ends == [Finish(jobs[1], Failure(Code.WORKER_CRASHED, text))]
    assert (it.retried, [each.attempts for each in jobs]) == (5, [2, 2, 2])


@pytest.mark.parametrize("turn", [0, 77])
def test_rule_9_all_are_to_blame_if_the_turn_is_unknown(turn: int) -> None:
    it, jobs = crowded()
    it.worker_lost("0", "it died", 1.0, turn=turn)
    assert [each.deaths for each in jobs] == [1, 1, 1]
    assert list(it.queue) == jobs


def test_rule_9_nobody_else_pays_for_a_cancelled_job() -> None:
    it, jobs = crowded(max_attempts=1)
    it.end(jobs[2], CANCELLED, 1.0)
    assert it.worker_lost("0", "it died", 2.0, turn=3) == []
    assert [each.deaths for each in jobs] == [0, 0, 0]


def test_rule_9_only_deaths_at_the_same_place_count() -> None:
    it, mine = turning("0"), hour()
    it.submit(mine, 0.0)
    for place in (30.0, 60.0, 90.0):
        assert it.job_moved("0", mine.key, place) is mine
        it.worker_lost("0", "it died", 1.0, turn=mine.key)
        it.worker_ready("0", "tiny", 2.0, slots=2)
        assert (mine.deaths, mine.done) == (1, place)
    # A worker that begins at the same place again has moved nothing.
    it.job_moved("0", mine.key, 90.0)
    assert kinds(it.worker_lost("0", "it died", 3.0, turn=mine.key)) == ["Finish worker-crashed"]


# --- rule 10: waits and runs ----------------------------------------------------------------------


def test_job_that_a_stopping_worker_hands_back_goes_on_elsewhere() -> None:
    it = turning("0", "1")
    for uid in range(1, 4):
        it.submit(command(uid), 0.0)
    stopping = Failure(Code.SHUTTING_DOWN, "the worker stops")
    key, mine = next(iter(it.workers["0"].jobs.items()))
    (start,) = it.job_failed("0", key, stopping, 1.0)
    assert isinstance(start, Start) and (start.job, start.worker) == (mine, "1")
    # It gets no more, but ends the others.
    for uid in range(4, 9):
        assert all(worker == "1" for _, worker in starts(it.submit(command(uid), 2.0)))
    for key in list(it.workers["0"].jobs):
        assert "Finish" in kinds(it.job_done("0", key, "text", 3.0))
    # Once it is back, it gets jobs again.
    it.worker_left("0", False, 4.0)
    assert it.worker_ready("0", "demo", 5.0)


def test_rule_10_wait_stands_still_while_the_model_loads() -> None:
    it, mine = scheduler(max_wait_seconds=30.0, max_load_seconds=200.0), job()
    it.worker_added("0", 0.0)
    it.submit(mine, 0.0)
    assert it.worker_loading("0", "large", 5.0) == []
    assert it.tick(150.0) == []
    # Two processes died while they loaded: no more is expected of it.
    it.worker_lost("0", "it died", 160.0)
    it.worker_loading("0", "large", 165.0)
    it.worker_lost("0", "it died", 170.0)
    assert it.next_deadline() == 200.0


def test_rule_10_recording_waits_for_its_worker_if_all_others_are_full() -> None:
    it = turning("0", "1")
    for uid in (1, 2):
        it.submit(hour(uid), 0.0)
    it.worker_lost("0", "it died", 10.0)
    it.worker_loading("0", "tiny", 11.0)
    assert it.tick(300.0) == []
    assert starts(it.worker_ready("0", "tiny", 301.0, slots=2)) == [(3, "0")]


def test_rule_10_sleeping_worker_counts_as_loading() -> None:
    it, mine = scheduler("0", max_wait_seconds=30.0), job()
    it.worker_left("0", True, 0.0)
    assert kinds(it.submit(mine, 0.0)) == ["Wake", "Accept"]
    assert it.tick(31.0) == []
    assert kinds(it.worker_ready("0", "tiny", 40.0)) == ["Start"]


def test_rule_10_wait_after_a_run_is_told_as_such() -> None:
    it, mine = turning("0", max_load_seconds=10.0), hour()
    it.submit(mine, 0.0)
    it.job_state("0", 1, 900.0, 600.0, None, 1000.0)
    it.worker_lost("0", "it died", 1000.0)
    text = "the job ran and waited 1040.0 s, longer than allowed"
    assert it.tick(1040.0) == [Finish(mine, Failure(Code.DEADLINE_EXCEEDED, text, phase="queue"))]


def test_rule_10_worker_that_only_gives_jobs_back_ends_no_wait() -> None:
    it, mine = turning("0", max_wait_seconds=30.0, max_load_seconds=10.0), job()
    it.submit(mine, 0.0)
    for now in range(1, 50):
        it.worker_left("0", True, now)
        it.tick(now + 0.9)
        it.worker_ready("0", "tiny", now + 0.9)
    assert mine.ended


def test_rule_10_run_counts_the_jobs_own_turns() -> None:
    it, mine = turning("0", max_run_seconds=60.0), hour()
    it.submit(mine, 0.0)
    it.job_state("0", 1, 20.0, 300.0, None, 59.9)
    assert it.tick(60.0) == []
    found = it.job_state("0", 1, 61.0, 600.0, None, 101.0)
    assert kinds(found) == ["Abandon", "Finish deadline-exceeded"]


# --- rule 11: lies --------------------------------------------------------------------------------


def test_rule_11_work_is_bounded_by_the_time() -> None:
    it, mine = turning("0"), hour()
    it.submit(mine, 0.0)
    it.job_state("0", 1, 600_000.0, 600_000.0, None, 2.0)
    assert (mine.work, mine.done) == (2.0, 3600.0)
    it.job_state("0", 1, 1.0, 5.0, None, 3.0)
    assert (mine.work, mine.done) == (2.0, 3600.0)
    # The next attempt begins where the last checkpoint was.
    it.worker_lost("0", "it died", 4.0)
    assert (mine.done, mine.long) == (0.0, True)


def test_rule_11_lie_about_the_work_spoils_no_prediction() -> None:
    it = turning("0", slots=4)
    it.submit(command(1), 0.0)
    it.job_done("0", 1, "text", 0.5, 600_000.0, 3.0)
    for _ in range(3):
        it.submit(command(1), 1.0)
    assert kinds(it.submit(command(2), 1.0)) == ["Accept"]


def test_work_of_all_attempts_adds_up() -> None:
    it, mine = turning("0"), hour()
    it.submit(mine, 0.0)
    it.job_state("0", 1, 10.0, 300.0, None, 20.0)
    it.worker_left("0", False, 21.0)
    it.worker_ready("0", "tiny", 22.0, slots=2)
    it.job_state("0", 2, 3.0, 30.0, None, 30.0)
    assert mine.work == 13.0


def test_jobs_that_fail_at_once_are_not_free() -> None:
    it, failing = scheduler("0"), [job(1), job(1)]
    other = job(2)
    for each in (failing[0], other, failing[1]):
        it.submit(each, 0.0)
    bad = Failure(Code.BAD_AUDIO, "audio: is broken")
    assert kinds(it.job_failed("0", 1, bad, 0.1)) == ["Finish bad-audio", "Start"]
    assert list(it.queue) == [failing[1]]


# --- fairness -------------------------------------------------------------------------------------


def test_no_flood_of_new_users_starves_a_recording() -> None:
    """Each time that a command ends, two users come who never came before."""
    it, mine, now = turning("0"), hour(1), 0.0
    for uid in (2, 3):
        it.submit(command(uid), now)
    it.submit(mine, now)
    for uid in range(10, 400, 2):
        now += 0.5
        for each in (uid, uid + 1):
            it.submit(command(each, timeout=1000.0), now)
        if mine.worker is not None:
            return
        oldest = min(it.workers["0"].jobs)
        it.job_done("0", oldest, "text", now, 0.5, 3.0)
    pytest.fail("the recording never started")


def test_users_recording_does_not_hold_up_its_commands() -> None:
    """Its user does not pay for all of it in advance, while another user's flood goes on."""
    it, recording, mine, now = turning("0", slots=4), hour(1), command(1), 0.0
    it.submit(recording, now)
    for _ in range(3):
        it.submit(command(2), now)
    it.submit(mine, now)
    for turn in range(1, 10):
        now += 0.5
        it.job_state("0", recording.key, 0.1 * turn, 3.0 * turn, None, now)
        oldest = min(key for key, each in it.workers["0"].jobs.items() if each.user == 2)
        it.job_done("0", oldest, "text", now, 0.4, 3.0)
        if mine.worker is not None:
            return
        it.submit(command(2), now)
    pytest.fail("the command never started")


def test_command_of_a_user_with_much_work_waits_for_seconds_of_a_new_users_flood() -> None:
    """However little those got meanwhile who wait for another model."""
    it, recording, mine, now = turning("0", slots=4), hour(1), command(1), 1000.0
    it.worker_added("1", 0.0)
    it.worker_ready("1", "large", 0.0)
    for uid in (8, 9):
        it.submit(hour(uid, needs=Needs("large"), timeout=9999.0), 0.0)
    it.submit(recording, 0.0)
    it.job_state("0", recording.key, 200.0, 3000.0, None, now)
    for _ in range(3):
        it.submit(command(2), now)
    it.submit(mine, now)
    while mine.worker is None and not mine.ended:
        now += 0.5
        oldest = min(key for key, each in it.workers["0"].jobs.items() if each.user == 2)
        it.job_done("0", oldest, "text", now, 0.4, 3.0)
        it.submit(command(2), now)
    assert not mine.ended


def test_flood_of_failing_jobs_starves_nobody() -> None:
    it, quiet, now = scheduler("0"), [job(2), job(2)], 0.0
    for _ in range(4):
        it.submit(job(1), now)
    for each in quiet:
        it.submit(each, now)
    for _ in range(8):
        now += 0.1
        ((key, running),) = it.workers["0"].jobs.items()
        if running.user == 2:
            it.job_done("0", key, "text", now, 0.1, 3.0)
        else:
            it.job_failed("0", key, Failure(Code.BAD_AUDIO, "audio: is broken"), now)
            it.submit(job(1), now)
    assert all(each.ended for each in quiet)


def test_no_sleeper_is_woken_for_a_job_that_may_not_run_yet() -> None:
    it = turning("0", "1", jobs_running_max_per_user=1)
    it.worker_left("1", True, 0.0)
    it.submit(command(), 0.0)
    assert kinds(it.submit(command(), 0.0)) == ["Accept"]
