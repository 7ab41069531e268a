"""The queue's order, its limits, and the cost of finding the next job."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from asrd.front.scheduling.fairqueue import FairQueue
from asrd.front.scheduling.job import Job, Needs
from asrd.settings import FrontSettings
from tests.support.counting import calls_of


def queue(*jobs: Job, **limits: Any) -> FairQueue:
    made = FairQueue(FrontSettings(**{"queue_max": 100_000, **limits}))
    for one in jobs:
        made.append(one)
    return made


def job(name: str, uid: int = 1, **fields: Any) -> Job:
    return Job(uid, fields.pop("arrival", 0.0), request=name, **fields)


def names(jobs: Iterable[Job]) -> list[str]:
    return [one.request for one in jobs]


def having(model: str | None) -> Callable[[Needs], bool]:
    """A test for what suits a worker with this model; None: everything."""
    return lambda needs: model is None or needs.model in (None, model)


def serve_all(waiting: FairQueue, model: str | None = "tiny") -> list[str]:
    served = []
    while (one := waiting.first(having(model))) is not None:
        waiting.serve(one)
        served.append(one)
    return names(served)


def test_users_take_turns() -> None:
    flood = [job("flood 1"), job("flood 2"), job("flood 3")]
    waiting = queue(*flood, job("quiet", uid=2), job("other", uid=3))
    assert serve_all(waiting) == ["flood 1", "quiet", "other", "flood 2", "flood 3"]
    assert len(waiting) == 0


def test_user_served_longest_ago_is_next_after_a_pause() -> None:
    waiting = queue(*(job(f"first of {uid}", uid) for uid in (1, 2, 3)))
    serve_all(waiting)
    # User 4 is new.
    for uid in (3, 2, 1, 4):
        waiting.append(job(f"second of {uid}", uid))
    expected = [f"second of {uid}" for uid in (4, 1, 2, 3)]
    assert names(waiting) == expected
    assert serve_all(waiting) == expected


def test_retry_that_suits_comes_first() -> None:
    waiting = queue(job("a"), job("b"))
    waiting.put_back(job("retry of large", needs=Needs("large")))
    waiting.put_back(job("retry"))
    assert names(waiting) == ["retry", "retry of large", "a", "b"]
    assert serve_all(waiting) == ["retry", "a", "b"]
    assert serve_all(waiting, "large") == ["retry of large"]


@pytest.mark.parametrize(
    ("limits", "jobs", "why"),
    [
        ({"queue_max": 2}, [job("a"), job("b"), job("c")], "the queue is full (2 of 2 jobs wait)"),
        ({"queue_max": 0}, [job("a")], "the queue is full (0 of 0 jobs wait)"),
        (
            {"queue_max_per_user": 1},
            [job("a", uid=7), job("b", uid=8), job("c", uid=7)],
            "the limit for user 7 is reached (waiting jobs: 1)",
        ),
        (
            {"queue_max_bytes": 100},
            [job("a", size=60), job("b", size=41)],
            "the queue is full (60 bytes of audio wait)",
        ),
        (
            {"queue_max_audio_seconds": 100.0},
            [job("a", seconds=60.0), job("b", seconds=40.5)],
            "the queue is full (60 s of audio wait)",
        ),
    ],
)
def test_job_over_a_limit_is_refused_with_the_reason(
    limits: dict[str, Any], jobs: list[Job], why: str
) -> None:
    waiting = queue(**limits)
    for one in jobs[:-1]:
        assert waiting.why_full(one) is None
        waiting.append(one)
    assert waiting.why_full(jobs[-1]) == why


def test_job_at_the_limits_is_accepted() -> None:
    limits = {"queue_max_bytes": 100, "queue_max_audio_seconds": 100.0, "queue_max_per_user": 2}
    waiting = queue(job("a", size=60, seconds=60.0), **limits)
    assert waiting.why_full(job("b", size=40, seconds=40.0)) is None
    # One alone may be larger than the limits.
    assert queue(**limits).why_full(job("huge", size=1000, seconds=1000.0)) is None


def test_served_users_are_forgotten() -> None:
    waiting = queue(*(job(f"of {uid}", uid) for uid in range(3000)))
    assert len(serve_all(waiting)) == 3000
    assert len(waiting._last_turn) <= 1024
    assert not waiting._lanes
    assert not waiting._waiting._of_user


@pytest.mark.parametrize("users", [1, 500])
def test_cost_of_the_next_job_does_not_depend_on_the_queue(users: int) -> None:
    def cost(length: int, model: str) -> int:
        jobs = (job(f"{n}", n % users, needs=Needs("large")) for n in range(length))
        waiting = queue(*jobs, job("small", needs=Needs("tiny")))
        return calls_of(lambda: waiting.serve(waiting.first(having(model)) or job("none")))

    for model in ("tiny", "large"):
        assert cost(1000, model) <= cost(10, model)


def test_oldest_arrival_is_found_at_a_constant_cost() -> None:
    def cost(length: int) -> int:
        waiting = queue(*(job(f"{n}", n % 7, arrival=10.0 + n) for n in range(length)))
        assert waiting.oldest_arrival() == 10.0
        return calls_of(waiting.oldest_arrival)

    assert cost(5000) <= cost(10)
    waiting = queue()
    assert waiting.oldest_arrival() is None
    waiting.put_back(job("retry", arrival=3.0))
    assert waiting.oldest_arrival() == 3.0
