"""The queue's order, its limits, and the cost of finding the next job."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from asrd.front.scheduling import fairqueue
from asrd.front.scheduling.fairqueue import FairQueue
from asrd.front.scheduling.job import Job, Needs
from asrd.settings import FrontSettings
from asrd.wire.peer import User
from tests.support.counting import calls_of


def queue(*jobs: Job, **limits: Any) -> FairQueue:
    made = FairQueue(FrontSettings(**{"queue_max": 100_000, **limits}))
    for one in jobs:
        made.append(one)
    return made


def job(name: str, uid: User = 1, **fields: Any) -> Job:
    return Job(uid, fields.pop("arrival", 0.0), request=name, **fields)


def names(jobs: Iterable[Job]) -> list[str]:
    return [one.request for one in jobs]


def having(model: str | None) -> Callable[[Job], bool]:
    """A test for what suits a worker with this model; None: everything."""
    return lambda job: model is None or job.needs.model in (None, model)


def next_of(waiting: FairQueue, model: str | None = None) -> Job | None:
    return waiting.first(lambda long: True, having(model))


def run(waiting: FairQueue, one: Job, work: float) -> None:
    waiting.start(one, work)
    one.worker = "0"
    waiting.charge(one, one.work + work)
    waiting.end(one)


def serve_all(waiting: FairQueue, model: str | None = "tiny", work: float = 1.0) -> list[str]:
    served = []
    while (one := next_of(waiting, model)) is not None:
        run(waiting, one, work)
        served.append(one)
    return names(served)


def give_back(waiting: FairQueue, one: Job) -> None:
    """A job was started, and its worker died."""
    waiting.append(one)
    waiting.start(one, 1.0)
    one.worker = "0"
    waiting.give_back(one)
    one.worker = None


def test_users_take_turns() -> None:
    flood = [job("flood 1"), job("flood 2"), job("flood 3")]
    waiting = queue(*flood, job("quiet", uid=2), job("other", uid=3))
    assert serve_all(waiting) == ["flood 1", "quiet", "other", "flood 2", "flood 3"]
    assert len(waiting) == 0


def test_turns_count_seconds_of_work() -> None:
    waiting = queue(job("hours 1"), job("hours 2"), *(job(f"{n}", uid=2) for n in range(3)))
    run(waiting, next_of(waiting) or job("none"), 3.5)
    assert serve_all(waiting) == ["0", "1", "2", "hours 2"]


def test_estimate_keeps_one_user_from_all_places_until_the_work_is_known() -> None:
    waiting = queue(job("a 1"), job("a 2"), job("b", uid=2))
    first = next_of(waiting)
    assert first is not None
    waiting.start(first, 10.0)
    first.worker = "0"
    assert names(waiting) == ["b", "a 2"]
    # It was cancelled at once: an estimate that did not come true is not paid for.
    waiting.end(first)
    assert names(waiting) == ["a 2", "b"]


def test_newcomer_owes_no_more_than_the_least_and_nobody_is_ahead_without_end() -> None:
    waiting = queue(job("a 1"), job("a 2"), job("a 3"))
    huge = next_of(waiting)
    assert huge is not None
    waiting.start(huge, 50_000.0)
    huge.worker = "0"
    # An estimate of another user's work is no debt of a newcomer, also if it proves wrong.
    waiting.append(job("b", uid=2))
    waiting.end(huge)
    assert names(waiting) == ["a 2", "a 3", "b"]
    second = next_of(waiting)
    assert second is not None
    waiting.start(second, 1.0)
    second.worker = "0"
    waiting.charge(second, 2000.0)
    # User 2 waits for long for a rare model; its credit is bounded.
    waiting.append(job("b 2", uid=2))
    assert waiting._accounts[2].work == 1990.0


def test_newcomer_begins_with_the_least_of_the_others() -> None:
    waiting = queue(job("a 1"), job("a 2"), job("b 1", uid=2), job("b 2", uid=2))
    for work in (5.0, 3.0):
        run(waiting, next_of(waiting) or job("none"), work)
    waiting.append(job("c", uid=3))
    assert waiting._accounts[3].work == 3.0
    assert names(waiting) == ["b 2", "c", "a 2"]


def test_users_who_come_again_and_again_hold_up_nobody() -> None:
    """Each of two live streams has one step at a time. Its user is gone between two of them."""
    waiting = queue(job("file 1"), job("file 2"), job("step", uid=2, step=True))
    run(waiting, next_of(waiting) or job("none"), 8.0)
    served = []
    for turn in range(100):
        waiting.append(job("step", uid=3 - turn % 2, step=True))
        one = next_of(waiting)
        assert one is not None
        run(waiting, one, 0.5)
        served.append(one.request)
        if one.request != "step":
            break
    assert served[-1] == "file 2"
    # Each of the streams had as much as the file.
    assert len(served) == 33
    serve_all(waiting)
    assert not (waiting._accounts or waiting._away)


def test_users_who_are_away_are_forgotten_if_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fairqueue, "_AWAY_MAX", 100)
    waiting = queue(job("rare", uid=-1, needs=Needs("large")))
    for uid in range(200):
        waiting.append(job("one", uid))
    assert len(serve_all(waiting, "tiny")) == 200
    assert len(waiting._away) == 100
    serve_all(waiting, "large")
    assert not waiting._away


def test_retry_that_suits_comes_first() -> None:
    waiting = queue(job("a"), job("b"))
    give_back(waiting, job("retry of large", needs=Needs("large")))
    give_back(waiting, job("retry"))
    assert names(waiting) == ["retry", "retry of large", "a", "b"]
    assert serve_all(waiting) == ["retry", "a", "b"]
    assert serve_all(waiting, "large") == ["retry of large"]


def test_long_job_holds_up_no_short_one_of_its_user() -> None:
    waiting = queue(job("long", seconds=100.0), job("short", seconds=1.0))
    first = waiting.first(lambda long: not long, having(None))
    assert first is not None and first.request == "short"


def test_length_decides_within_a_lane_if_a_worker_has_a_limit() -> None:
    waiting = queue(job("25 s", seconds=25.0), job("5 s", seconds=5.0))
    found = waiting.first(lambda long: True, lambda one: one.seconds < 10, deep=True)
    assert found is not None and found.request == "5 s"


def test_running_jobs_of_a_user_are_limited() -> None:
    waiting = queue(job("a 1"), job("a 2"), job("b", uid=2), jobs_running_max_per_user=1)
    first = next_of(waiting)
    assert first is not None and waiting.may_start(job("next"))
    waiting.start(first, 0.0)
    first.worker = "0"
    assert (waiting.may_start(job("next")), waiting.may_start(job("next", uid=2))) == (False, True)
    second = next_of(waiting)
    assert second is not None and second.request == "b"
    waiting.end(first)
    assert waiting.may_start(job("next"))


def test_steps_are_none_of_the_running_jobs_that_are_limited() -> None:
    """Neither waits until the other has ended: a recording may last for hours."""
    waiting = queue(job("file"), job("later"), jobs_running_max_per_user=1)
    for name in ("file", "step 1", "step 2"):
        if name != "file":
            waiting.append(job(name, step=True))
        found = next_of(waiting)
        assert found is not None and found.request == name
        waiting.start(found, 1.0)
        found.worker = "0"
    assert next_of(waiting) is None


def test_work_ahead_is_what_has_cost_less() -> None:
    """Users 1 and 2 have three jobs each, of 10 and 1 s; one job of user 1 runs."""
    waiting = queue(*(job(f"a {n}") for n in range(3)), *(job(f"b {n}", uid=2) for n in range(3)))
    first = next_of(waiting)
    assert first is not None
    waiting.start(first, 10.0)
    first.worker = "0"

    def ahead(uid: int) -> float:
        return waiting.work_ahead(job("new", uid), lambda one: 10.0 if one.user == 1 else 1.0)

    # A newcomer comes after the one job of user 2 that is older and has cost no more.
    assert ahead(3) == 1.0
    assert ahead(2) == 3.0
    assert ahead(1) == 23.0


@pytest.mark.parametrize(
    ("limits", "jobs", "why"),
    [
        ({"queue_max": 2}, [job("a"), job("b"), job("c")], "the queue is full (2 of 2 jobs wait)"),
        (
            {"queue_max": 1},
            [job("a"), job("b", uid=2), job("c", uid=3)],
            "the queue is full (2 of 2 jobs wait)",
        ),
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


def test_user_with_nothing_waiting_gets_a_place() -> None:
    limits = {"queue_max": 2, "queue_max_bytes": 1024, "queue_max_audio_seconds": 10.0}
    waiting = queue(job("a 1", size=1024, seconds=10.0), job("a 2"), **limits)
    assert waiting.why_full(job("a 3")) == "the queue is full (2 of 2 jobs wait)"
    assert waiting.why_full(job("b", uid=2, size=1024, seconds=10.0)) is None


def test_steps_count_in_no_limit_and_wait_behind_the_jobs_of_their_user() -> None:
    limits = {"queue_max": 1, "queue_max_per_user": 1, "queue_max_bytes": 1024}
    steps = [job(f"step {n}", size=1024, seconds=30.0, step=True) for n in range(3)]
    waiting = queue(*steps, **limits, queue_max_audio_seconds=1.0)
    assert waiting.why_full(steps[0]) is None
    assert (len(waiting), waiting.oldest_arrival()) == (0, None)
    mine, other = job("mine", arrival=7.0), job("other", uid=2)
    for one in (mine, other):
        assert waiting.why_full(one) is None
        waiting.append(one)
    assert waiting.why_full(job("more")) == "the queue is full (2 of 1 jobs wait)"
    assert waiting.work_ahead(job("more"), lambda one: 1.0) == 2.0
    assert len(waiting) == 2
    assert serve_all(waiting) == ["mine", "other", "step 0", "step 1", "step 2"]


def test_step_that_was_given_back_is_before_other_steps_and_behind_jobs() -> None:
    waiting = queue()
    give_back(waiting, job("again", step=True))
    give_back(waiting, job("retry"))
    for one in (job("step", step=True), job("mine")):
        waiting.append(one)
    assert len(waiting) == 2
    assert serve_all(waiting) == ["retry", "mine", "again", "step"]


def test_strangers_leave_half_of_the_places_to_others() -> None:
    for places, theirs in ((0, 0), (1, 1), (5, 3)):
        waiting = queue(queue_max=places)
        strangers = [job(f"{n}", f"address 192.0.2.{n}", stranger=True) for n in range(theirs + 1)]
        for one in strangers[:-1]:
            assert waiting.why_full(one) is None
            waiting.append(one)
        text = f"the limit for all clients is reached (waiting jobs over Wyoming: {theirs})"
        assert waiting.why_full(strangers[-1]) == text
        assert waiting.why_full(job("local")) is None or not places
        serve_all(waiting)
        assert not waiting._strangers._of_user


def test_served_users_are_forgotten() -> None:
    waiting = queue(*(job(f"of {uid}", uid) for uid in range(300)))
    assert len(serve_all(waiting, work=0.0)) == 300
    assert not (waiting._accounts or waiting._away or waiting._lanes)
    assert not waiting._waiting._of_user


def test_cost_of_the_next_job_does_not_depend_on_the_queue() -> None:
    def cost(length: int, model: str) -> int:
        jobs = (job(f"{n}", n % 5, needs=Needs("large")) for n in range(length))
        waiting = queue(*jobs, job("small", needs=Needs("tiny")))
        return calls_of(lambda: waiting.start(next_of(waiting, model) or job("none"), 1.0))

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
    give_back(waiting, job("retry", arrival=3.0))
    assert waiting.oldest_arrival() == 3.0
