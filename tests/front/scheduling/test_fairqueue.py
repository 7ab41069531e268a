"""The queue's order, its bounds, and what it costs to find the next job."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from asrd.front.scheduling.fairqueue import FairQueue
from asrd.front.scheduling.job import Job, Needs
from asrd.settings import FrontSettings
from tests.support.counting import calls_of


def queue(**limits: Any) -> FairQueue:
    return FairQueue(FrontSettings(**{"queue_max": 1000, **limits}))


def job(name: str, uid: int = 1, **fields: Any) -> Job:
    return Job(uid, 0.0, request=name, **fields)


def put(into: FairQueue, *jobs: Job) -> None:
    for one in jobs:
        into.append(one)


def names(jobs: Iterable[Job]) -> list[str]:
    return [one.request for one in jobs]


def having(model: str | None) -> Callable[[Needs], bool]:
    """What suits a worker with this model; None: whatever there is."""
    return lambda needs: model is None or needs.model in (None, model)


def serve_all(waiting: FairQueue, model: str | None = "tiny") -> list[str]:
    served = []
    while (one := waiting.first(having(model))) is not None:
        waiting.serve(one)
        served.append(one)
    return names(served)


def test_one_user_is_served_in_the_order_of_arrival() -> None:
    waiting = queue()
    put(waiting, job("a"), job("b"), job("c"))
    assert names(waiting) == ["a", "b", "c"]
    assert serve_all(waiting) == ["a", "b", "c"]
    assert len(waiting) == 0


def test_users_take_turns_however_much_each_sends() -> None:
    waiting = queue()
    put(waiting, job("flood 1"), job("flood 2"), job("flood 3"))
    put(waiting, job("quiet", uid=2), job("other", uid=3))
    assert serve_all(waiting) == ["flood 1", "quiet", "other", "flood 2", "flood 3"]


def test_who_was_served_longest_ago_is_next_also_after_a_pause() -> None:
    waiting = queue()
    put(waiting, *(job(f"first of {uid}", uid) for uid in (1, 2, 3)))
    serve_all(waiting)
    put(waiting, *(job(f"second of {uid}", uid) for uid in (3, 2, 1)))
    assert names(waiting) == ["second of 1", "second of 2", "second of 3"]
    assert serve_all(waiting) == ["second of 1", "second of 2", "second of 3"]


def test_a_newcomer_goes_before_those_who_were_served() -> None:
    waiting = queue()
    old = job("old")
    put(waiting, old, job("older's next"))
    waiting.serve(old)
    put(waiting, job("new", uid=2))
    assert serve_all(waiting) == ["new", "older's next"]


def test_a_worker_is_given_what_its_model_can_run() -> None:
    waiting = queue()
    put(waiting, job("large", needs=Needs("large")), job("any"), job("tiny", needs=Needs("tiny")))
    assert serve_all(waiting, "base") == ["any"]
    assert serve_all(waiting, "tiny") == ["tiny"]
    assert names(waiting) == ["large"]
    # A worker that never loaded may turn out to have any model.
    assert serve_all(waiting, None) == ["large"]


def test_a_retry_goes_before_all_others_if_the_model_fits() -> None:
    waiting = queue()
    put(waiting, job("a"), job("b"))
    waiting.put_back(job("retry of large", needs=Needs("large")))
    waiting.put_back(job("retry"))
    assert names(waiting) == ["retry", "retry of large", "a", "b"]
    assert serve_all(waiting) == ["retry", "a", "b"]
    assert serve_all(waiting, "large") == ["retry of large"]


def test_a_job_may_leave_from_anywhere() -> None:
    waiting = queue(queue_max_bytes=100)
    jobs = [job(name, size=30) for name in "abc"]
    put(waiting, *jobs)
    retry = job("retry")
    waiting.put_back(retry)
    waiting.remove(jobs[1])
    waiting.remove(retry)
    assert names(waiting) == ["a", "c"]
    assert waiting.why_full(job("d", size=40)) is None


@pytest.mark.parametrize(
    ("limits", "waiting_already", "next_one", "why"),
    [
        ({"queue_max": 2}, [job("a"), job("b")], job("c"), "the queue is full (2 of 2 jobs wait)"),
        ({"queue_max": 0}, [], job("a"), "the queue is full (0 of 0 jobs wait)"),
        (
            {"queue_max_per_user": 1},
            [job("a", uid=7), job("b", uid=8)],
            job("c", uid=7),
            "the limit for user 7 is reached (1 waiting jobs)",
        ),
        (
            {"queue_max_bytes": 100},
            [job("a", size=60)],
            job("b", size=41),
            "the queue is full (60 bytes of audio wait)",
        ),
        (
            {"queue_max_audio_seconds": 100.0},
            [job("a", seconds=60.0)],
            job("b", seconds=40.5),
            "the queue is full (60 s of audio wait)",
        ),
    ],
)
def test_one_more_than_the_bound_is_told_why(
    limits: dict[str, Any], waiting_already: list[Job], next_one: Job, why: str
) -> None:
    waiting = queue(**limits)
    for one in waiting_already:
        assert waiting.why_full(one) is None
        waiting.append(one)
    assert waiting.why_full(next_one) == why


def test_at_the_bound_there_is_still_room() -> None:
    waiting = queue(queue_max_bytes=100, queue_max_audio_seconds=100.0, queue_max_per_user=2)
    put(waiting, job("a", size=60, seconds=60.0))
    assert waiting.why_full(job("b", size=40, seconds=40.0)) is None


def test_one_job_alone_may_be_larger_than_all_bounds() -> None:
    waiting = queue(queue_max_bytes=100, queue_max_audio_seconds=100.0)
    assert waiting.why_full(job("huge", size=1000, seconds=1000.0)) is None


def test_retries_do_not_count_against_the_bounds() -> None:
    waiting = queue(queue_max=1, queue_max_bytes=10)
    waiting.put_back(job("retry", size=1000))
    assert waiting.why_full(job("a", size=10)) is None
    assert len(waiting) == 1


def test_served_users_are_not_remembered_for_ever() -> None:
    waiting = queue(queue_max=10_000)
    put(waiting, *(job(f"of {uid}", uid) for uid in range(3000)))
    assert len(serve_all(waiting)) == 3000
    assert len(waiting._last_turn) <= 1024
    assert not waiting._lanes
    assert not waiting._waiting._of_user


@pytest.mark.parametrize("users", [1, 500])
@pytest.mark.parametrize("model", ["tiny", "large"])
def test_the_next_job_costs_the_same_however_many_wait(users: int, model: str) -> None:
    def cost(length: int) -> int:
        waiting = queue(queue_max=10_000)
        put(waiting, *(job(f"{n}", n % users, needs=Needs("large")) for n in range(length)))
        put(waiting, job("small", needs=Needs("tiny")))
        return calls_of(lambda: waiting.serve(waiting.first(having(model)) or job("none")))

    assert cost(1000) <= cost(10)


def test_the_oldest_is_found_without_a_look_at_all_that_wait() -> None:
    def cost(length: int) -> int:
        waiting = queue(queue_max=100_000)
        for number in range(length):
            waiting.append(Job(number % 7, 10.0 + number))
        assert waiting.oldest_arrival() == 10.0
        return calls_of(waiting.oldest_arrival)

    assert cost(5000) <= cost(10)
    assert queue().oldest_arrival() is None


def test_a_retry_is_among_the_oldest() -> None:
    waiting = queue()
    waiting.append(Job(1, 5.0))
    waiting.put_back(Job(2, 3.0))
    assert waiting.oldest_arrival() == 3.0
