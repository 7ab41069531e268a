"""The delays that refused clients are given."""

import pytest

from asrd.front.scheduling.retry_after import Place, RetryAfter

# The ready workers that could run a client's job, a short one.
ONE: Place = (("0",), False)
OTHER: Place = (("1",), False)
BOTH: Place = (("0", "1"), False)
NONE: Place = ((), False)


def delays(
    retry_after: RetryAfter,
    count: int,
    run: float = 3.0,
    user: int = 1,
    place: Place = ONE,
    soonest: float = 0.0,
) -> list[float]:
    return [retry_after.next_delay(user, place, soonest, run, 100.0) for _ in range(count)]


@pytest.mark.parametrize(
    ("run", "place", "first"),
    [(4.0, ONE, 4.0), (4.0, BOTH, 2.0), (4.0, NONE, 4.0), (0.001, ONE, 0.05)],
)
def test_first_delay_is_one_run_over_all_workers_if_no_more_is_known(
    run: float, place: Place, first: float
) -> None:
    assert delays(RetryAfter(), 1, run, place=place) == pytest.approx([first])


def test_first_delay_is_the_time_until_there_is_a_place() -> None:
    # A recording of ten minutes that has nearly ended, and one that has just begun.
    assert delays(RetryAfter(), 2, 600.0, soonest=5.0) == pytest.approx([5.0, 205.0])
    assert delays(RetryAfter(), 2, 3.0, soonest=600.0) == pytest.approx([600.0, 601.0])


def test_clients_refused_together_return_one_after_another() -> None:
    queue = RetryAfter()
    assert delays(queue, 5) == pytest.approx([3.0, 4.0, 5.0, 6.0, 7.0])
    # Time moves the queue on.
    assert queue.next_delay(1, ONE, 0.0, 3.0, 105.0) == pytest.approx(3.0)


def test_one_users_queue_delays_another_by_its_turns_alone() -> None:
    queue = RetryAfter()
    delays(queue, 20)
    assert delays(queue, 3, user=2) == pytest.approx([3.0, 5.0, 7.0])


def test_short_command_is_not_behind_refused_recordings() -> None:
    queue = RetryAfter()
    delays(queue, 20, 600.0, place=(("0",), True))
    assert delays(queue, 1, 0.5) == [0.5]


def test_worker_with_a_place_empties_its_own_queues_alone() -> None:
    queue, long = RetryAfter(), (("0",), True)
    for place, run in ((ONE, 3.0), (OTHER, 3.0), (BOTH, 3.0), (long, 3.0)):
        delays(queue, 3, run, place=place)
    queue.place_free("0", False)
    firsts = [delays(queue, 1, place=place)[0] for place in (ONE, BOTH, OTHER, long)]
    assert firsts == pytest.approx([3.0, 1.5, 6.0, 6.0])


def test_no_delay_is_longer_than_an_hour() -> None:
    assert max(delays(RetryAfter(), 1000, 30.0)) == 3600.0
