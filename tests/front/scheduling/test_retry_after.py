"""When those who were refused shall come back."""

import pytest

from asrd.front.scheduling.retry_after import RetryAfter

# The ready workers that a job could run on.
ONE = ("0",)


def after(seconds: float) -> RetryAfter:
    """Jobs have run for so long."""
    made = RetryAfter()
    for _ in range(100):
        made.job_ran(seconds)
    return made


def test_the_first_is_told_one_run_over_all_slots() -> None:
    assert RetryAfter().next_delay(1, ONE, 0.0) == 1.0
    assert after(4.0).next_delay(1, ONE, 0.0) == pytest.approx(4.0)
    assert after(4.0).next_delay(1, ("0", "1"), 0.0) == pytest.approx(2.0)


def test_without_a_ready_worker_it_is_a_second_at_least() -> None:
    assert after(0.1).next_delay(1, (), 0.0) == 1.0
    assert after(4.0).next_delay(1, (), 0.0) == pytest.approx(4.0)


def test_those_refused_together_come_one_after_another_and_more_than_there_are_places() -> None:
    line = after(3.0)
    told = [line.next_delay(1, ONE, 0.0) for _ in range(5)]
    assert told == pytest.approx([3.0, 4.0, 5.0, 6.0, 7.0])


def test_time_moves_the_line_on() -> None:
    line = after(3.0)
    for _ in range(4):
        line.next_delay(1, ONE, 0.0)
    assert line.next_delay(1, ONE, 5.0) == pytest.approx(3.0)


def test_one_users_line_makes_anothers_no_longer_than_their_turns() -> None:
    line = after(3.0)
    for _ in range(20):
        line.next_delay(1, ONE, 0.0)
    assert [line.next_delay(2, ONE, 0.0) for _ in range(3)] == pytest.approx([3.0, 5.0, 7.0])


def test_a_line_that_nobody_stands_in_is_forgotten() -> None:
    line = after(3.0)
    for _ in range(20):
        line.next_delay(1, ONE, 0.0)
    line.worker_idle("0")
    assert line.next_delay(1, ONE, 0.0) == pytest.approx(3.0)


def test_those_who_compete_for_other_workers_have_lines_of_their_own() -> None:
    line = after(3.0)
    for workers, run in ((("0",), 3.0), (("1",), 3.0), (("0", "1"), 1.5)):
        told = [line.next_delay(1, workers, 0.0) for _ in range(3)]
        assert told == pytest.approx([run, run * 4 / 3, run * 5 / 3])
    line.worker_idle("0")
    assert line.next_delay(1, ("0",), 0.0) == pytest.approx(3.0)
    assert line.next_delay(1, ("0", "1"), 0.0) == pytest.approx(1.5)
    assert line.next_delay(1, ("1",), 0.0) == pytest.approx(6.0)


def test_nobody_is_told_less_than_50_ms_or_more_than_a_minute() -> None:
    assert after(0.001).next_delay(1, ONE, 0.0) == 0.05
    line = after(30.0)
    assert max(line.next_delay(1, ONE, 0.0) for _ in range(1000)) == 60.0
