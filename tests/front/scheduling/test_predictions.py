"""Predicted waits: refusals at once, and honest delays."""

from typing import Any

import pytest

from asrd.errors import Code
from asrd.front.scheduling.actions import Failure, Refuse
from asrd.front.scheduling.job import Needs
from asrd.front.scheduling.scheduler import Scheduler
from tests.support.scheduling import command, hour, job, kinds, refusal, turning


def known(slots: int = 2, **settings: Any) -> Scheduler:
    """A command takes 0.4 s, and a recording 2 s for each window."""
    it = turning("0", slots=slots, **settings)
    it.submit(command(8), 0.0)
    it.job_done("0", 1, "text", 10.0, 0.4, 3.0)
    it.submit(hour(9), 10.0)
    it.job_done("0", 2, "text", 300.0, 240.0, 3600.0)
    return it


def test_command_behind_a_recording_is_refused_at_once_if_there_are_no_turns() -> None:
    it = known(slots=1)
    it.submit(hour(1), 1000.0)
    (refused,) = it.submit(command(), 1000.0)
    text = "it would wait about 240 s, longer than the 30 s that it may"
    assert isinstance(refused, Refuse)
    assert refused.failure == Failure(Code.BUSY, text, retry_after_ms=240_000)
    # The progress of the recording counts.
    it.job_state("0", 3, 220.0, 3300.0, None, 1220.0)
    assert kinds(it.submit(command(3), 1220.0)) == ["Accept"]


def test_command_beside_recordings_is_never_refused_for_them() -> None:
    it = known()
    for uid in (1, 2, 3):
        it.submit(hour(uid, timeout=5000.0), 1000.0)
    for uid in (4, 5, 6):
        assert kinds(it.submit(command(uid), 1000.0))[-1] == "Accept"
    assert it.admission.retry_after_ms(command(7), 1000.0) <= 400


def test_first_recording_of_a_worker_is_measured_while_it_runs() -> None:
    it = turning("0", slots=1)
    it.submit(job(1, seconds=600.0), 0.0)
    assert kinds(it.submit(command(), 1.0)) == ["Accept"]
    it.job_state("0", 1, 10.0, 60.0, None, 10.0)
    # 18 windows of 5 s each.
    assert it.admission.retry_after_ms(command(3), 10.0) == 90_000
    assert kinds(it.submit(command(3), 10.0)) == ["Refuse busy"]


def test_recording_waits_for_one_of_a_floods_commands_not_for_recordings() -> None:
    it = known(slots=4)
    for uid in (1, 2):
        it.submit(hour(uid), 1000.0)
    for _ in range(6):
        it.submit(command(3), 1000.0)
    assert kinds(it.submit(hour(4), 1000.0)) == ["Accept"]
    assert kinds(it.job_done("0", 5, "text", 1000.4, 0.4, 3.0)) == ["Finish", "Start"]
    assert len([each for each in it.running() if each.long]) == 3


def test_second_recording_of_a_user_waits_for_its_first() -> None:
    it = known(slots=4)
    it.submit(hour(1), 1000.0)
    it.submit(hour(2), 1000.0)
    # Both of them take turns.
    text = "it would wait about 480 s, longer than the 30 s that it may"
    assert refusal(it, hour(1), 1000.0) == (Code.BUSY, text)
    assert kinds(it.submit(hour(1, timeout=5000.0), 1000.0)) == ["Accept"]
    assert kinds(it.submit(hour(3), 1000.0)) == ["Start", "Accept"]


def test_command_in_a_large_format_does_not_wait_for_its_users_recording() -> None:
    it, wav = known(slots=4), 30 * 48_000 * 2 * 2
    it.submit(hour(1), 1000.0)
    assert kinds(it.submit(job(1, size=wav), 1000.0)) == ["Start", "Accept"]


def test_commands_of_unknown_length_are_expected_to_be_commands() -> None:
    it = known(slots=4)
    for _ in range(3):
        it.submit(job(1, size=5_000_000), 1000.0)
    assert it.admission.retry_after_ms(command(2), 1000.0) == 400
    assert kinds(it.submit(command(2, timeout=1001.0), 1000.0)) == ["Accept"]


def test_last_words_of_a_resumed_recording_are_no_measure_for_commands() -> None:
    it, resumed = known(slots=4), hour(1)
    it.submit(resumed, 1000.0)
    it.job_moved("0", resumed.key, 3590.0)
    it.worker_left("0", False, 1500.0)
    it.worker_ready("0", "tiny", 1501.0, slots=4)
    it.job_done("0", resumed.key, "text", 1600.0, 60.0, 3600.0)
    for _ in range(2):
        it.submit(command(1), 1600.0)
    assert it.admission.retry_after_ms(command(2), 1600.0) == 400


def test_search_for_speech_is_no_measure_for_commands() -> None:
    it = known(slots=1)
    for number in range(3, 23):
        it.submit(job(2, seconds=3.0, needs=Needs(speech=True)), 1000.0)
        it.job_done("0", number, "text", 1000.01, 0.005, 3.0)
    it.submit(command(2), 1001.0)
    assert it.admission.retry_after_ms(command(3), 1001.0) == 400


def test_limit_of_running_jobs_counts_in_the_prediction() -> None:
    it = known(slots=4, jobs_running_max_per_user=1)
    it.submit(hour(1), 1000.0)
    text = "it would wait about 240 s, longer than the 30 s that it may"
    assert refusal(it, command(1), 1000.0) == (Code.BUSY, text)
    assert kinds(it.submit(command(2), 1000.0)) == ["Start", "Accept"]


def test_jobs_for_another_model_are_not_in_the_way() -> None:
    it = known(slots=1)
    it.worker_added("1", 1000.0)
    it.worker_ready("1", "large", 1000.0)
    large, tiny = Needs("large"), Needs("tiny")
    it.submit(hour(1, needs=large), 1000.0)
    it.submit(hour(2, needs=large, timeout=5000.0), 1000.0)
    it.submit(command(3, needs=tiny), 1000.0)
    assert kinds(it.submit(command(4, needs=tiny), 1000.0)) == ["Accept"]


def test_quiet_user_is_next_so_a_flood_is_not_in_its_way() -> None:
    it = known(slots=1, queue_max_per_user=0, queue_max=200)
    for _ in range(76):
        assert kinds(it.submit(command(1), 1000.0))[-1] == "Accept"
    # 0.4 s for each of them.
    (refused,) = it.submit(command(1), 1000.0)
    assert isinstance(refused, Refuse) and refused.failure.retry_after_ms == 400
    assert kinds(it.submit(command(2, timeout=1001.0), 1000.0)) == ["Accept"]
    assert kinds(it.submit(command(3, timeout=1000.9), 1000.0)) == ["Accept"]


def test_refused_job_should_return_when_its_wait_is_short_enough() -> None:
    it = known(slots=1, queue_max_per_user=0, queue_max=200)
    for _ in range(61):
        it.submit(command(1), 1000.0)
    (refused,) = it.submit(command(1, timeout=1004.4), 1000.0)
    assert isinstance(refused, Refuse) and refused.failure.retry_after_ms == 20_000


def test_job_that_is_overdue_when_it_comes_is_accepted_first() -> None:
    it = known(slots=1)
    it.worker_lost("0", "it died", 900.0)
    found = it.submit(command(1, timeout=1.0), 1000.0)
    assert kinds(found) == ["Accept", "Finish deadline-exceeded"]


@pytest.mark.parametrize("state", ["asleep", "starting"])
def test_worker_on_its_way_counts_in_the_prediction(state: str) -> None:
    """It runs the job as soon as it is there."""
    it = known(slots=1)
    it.worker_added("1", 0.0)
    it.worker_ready("1", "tiny", 0.0)
    it.worker_left("1", state == "asleep", 0.0)
    it.submit(hour(1), 1000.0)
    wakes = ["Wake"] if state == "asleep" else []
    assert kinds(it.submit(hour(2), 1000.0)) == [*wakes, "Accept"]
    assert kinds(it.worker_ready("1", "tiny", 1002.0)) == ["Start"]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("search", [False, True])
def test_steps_of_other_users_are_in_the_way(own: bool, search: bool) -> None:
    """Each user's next step comes before a new user's job; searches for speech take no time."""
    it = known(slots=1)
    for uid in range(100, 200):
        step = job(1 if own else uid, seconds=3.0, step=True, needs=Needs(speech=search))
        assert "Accept" in kinds(it.submit(step, 1000.0))
    # One runs already.
    text = "it would wait about 40 s, longer than the 30 s that it may"
    if own or search:
        assert kinds(it.submit(command(1), 1000.0)) == ["Accept"]
    else:
        assert refusal(it, command(1), 1000.0) == (Code.BUSY, text)
