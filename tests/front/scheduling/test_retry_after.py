"""The delays that refused clients are given."""

from collections.abc import Iterable

import pytest

from asrd.front.scheduling.retry_after import RetryAfter

# The ready workers that could run a client's job.
ONE, OTHER, BOTH = ("0",), ("1",), ("0", "1")


def after(seconds: float) -> RetryAfter:
    """Jobs have run for so long."""
    made = RetryAfter()
    for _ in range(100):
        made.job_ran(seconds)
    return made


def delays(
    retry_after: RetryAfter, count: int, user: int = 1, workers: Iterable[str] = ONE
) -> list[float]:
    return [retry_after.next_delay(user, tuple(workers), 0.0) for _ in range(count)]


@pytest.mark.parametrize(
    ("run", "workers", "first"),
    [
        (4.0, ONE, 4.0),
        (4.0, BOTH, 2.0),
        (4.0, (), 4.0),
        # With no ready worker at least a second, and never less than 50 ms.
        (0.1, (), 1.0),
        (0.001, ONE, 0.05),
    ],
)
def test_first_delay_is_one_run_over_all_workers(
    run: float, workers: tuple[str, ...], first: float
) -> None:
    assert delays(after(run), 1, workers=workers) == pytest.approx([first])


def test_clients_refused_together_return_one_after_another() -> None:
    queue = after(3.0)
    assert delays(queue, 5) == pytest.approx([3.0, 4.0, 5.0, 6.0, 7.0])
    # Time moves the queue on.
    assert queue.next_delay(1, ONE, 5.0) == pytest.approx(3.0)


def test_one_users_queue_delays_another_by_its_turns_alone() -> None:
    queue = after(3.0)
    delays(queue, 20)
    assert delays(queue, 3, user=2) == pytest.approx([3.0, 5.0, 7.0])


def test_idle_worker_empties_its_own_queues_alone() -> None:
    queue = after(3.0)
    for workers, run in ((ONE, 3.0), (OTHER, 3.0), (BOTH, 1.5)):
        expected = [run, run * 4 / 3, run * 5 / 3]
        assert delays(queue, 3, workers=workers) == pytest.approx(expected)
    queue.worker_idle("0")
    firsts = [delays(queue, 1, workers=workers)[0] for workers in (ONE, BOTH, OTHER)]
    assert firsts == pytest.approx([3.0, 1.5, 6.0])


def test_no_delay_is_longer_than_a_minute() -> None:
    assert max(delays(after(30.0), 1000)) == 60.0
