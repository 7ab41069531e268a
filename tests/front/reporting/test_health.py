"""When the daemon says that all is well, and what it says else."""

import pytest

from asrd.errors import Code
from asrd.front.reporting import health, snapshot
from asrd.front.scheduling.workers import WorkerState
from tests.front.reporting.test_snapshot import (
    ALICE,
    ROOT,
    add,
    death,
    front,
    peer,
    submit,
    worker,
)

R, S, L = WorkerState.READY, WorkerState.STARTING, WorkerState.LOADING
A, F, D = WorkerState.ASLEEP, WorkerState.FAILED, WorkerState.DOWN


@pytest.mark.parametrize(
    ("states", "expected", "problems"),
    [
        ([], "unavailable", ["no worker is configured"]),
        ([R], "ok", []),
        ([A], "ok", []),
        ([R, A], "ok", []),
        ([S], "unavailable", ["worker 0 is starting"]),
        ([L], "unavailable", ["worker 0 is loading"]),
        ([F], "unavailable", ["worker 0 is failed: why"]),
        ([D], "unavailable", ["worker 0 is down: why"]),
        ([S, F], "unavailable", ["worker 0 is starting", "worker 1 is failed: why"]),
        ([R, S], "degraded", ["worker 1 is starting"]),
        ([L, R], "degraded", ["worker 0 is loading"]),
        ([A, F], "degraded", ["worker 1 is failed: why"]),
        ([R, D], "degraded", ["worker 1 is down: why"]),
    ],
)
def test_state_and_problems(states: list[WorkerState], expected: str, problems: list[str]) -> None:
    made = front()
    for index, state in enumerate(states):
        add(made, str(index))
        found = made.scheduler.workers[str(index)]
        found.state, found.reason = state, "why" if state in (F, D) else None
    assert health.state(made, 103.5) == expected
    assert health.problems(made, 103.5) == problems
    told = snapshot.snapshot(made, peer(ROOT), now=103.5)
    assert (told["state"], told["problems"]) == (expected, problems)
    assert [row["state"] for row in told["workers"]] == [state.value for state in states]


def test_a_full_queue_is_a_problem() -> None:
    made = front("0", queue_max=2)
    for number in range(3):
        assert health.state(made, 103.5) == "ok"
        submit(made, f"job{number}")
    assert health.state(made, 103.5) == "degraded"
    assert health.problems(made, 103.5) == ["the queue is full (2 of 2)"]


def test_a_queue_that_lets_nobody_wait_is_no_problem() -> None:
    assert health.state(front("0", queue_max=0), 103.5) == "ok"


def test_a_daemon_that_drains_is_unavailable() -> None:
    made = front("0")
    made.scheduler.drain(0.0)
    assert health.state(made, 103.5) == "unavailable"
    assert health.problems(made, 103.5) == ["asrd is shutting down"]


def test_a_retired_worker_serves_nobody() -> None:
    made = front("0", "1")
    made.scheduler.worker_retired("0", 103.0)
    assert health.state(made, 103.5) == "degraded"
    assert worker(made, ALICE)["retired"]
    made.scheduler.worker_retired("1", 103.0)
    assert health.state(made, 103.5) == "unavailable"


# --- workers that look well and are not -----------------------------------------------------------


def test_a_sleeper_counts_only_if_it_is_known_to_start() -> None:
    made = front("0")
    made.scheduler.worker_left("0", True, 103.0)
    assert health.state(made, 103.5) == "ok"
    made.links["0"].info.loads = False
    assert health.state(made, 103.5) == "unavailable"
    assert health.problems(made, 103.5) == [
        "worker 0 is asleep, and has not been seen to load its model"
    ]


@pytest.mark.parametrize(
    ("heard", "expected", "problems"),
    [
        (103.0, "ok", []),
        (102.5, "ok", []),
        (102.4, "unavailable", ["worker 0 has given no sign of life for 1.1 s"]),
    ],
)
def test_a_worker_that_owes_signs_of_life_is_silent_after_a_second(
    heard: float, expected: str, problems: list[str]
) -> None:
    made = front("0")
    made.links["0"].info.alive_seconds, made.links["0"].info.heard_at = 0.5, heard
    assert (health.state(made, 103.5), health.problems(made, 103.5)) == (expected, problems)


def test_who_promised_no_signs_of_life_owes_none() -> None:
    assert health.state(front("0"), 1e6) == "ok"


def test_one_silent_worker_of_two_leaves_the_other() -> None:
    made = front("0", "1")
    made.links["1"].info.alive_seconds = 0.5
    assert health.state(made, 103.5) == "degraded"


def test_a_worker_that_loads_owes_no_signs_of_life() -> None:
    made = front("0")
    made.links["0"].info.alive_seconds = 0.5
    made.scheduler.worker_lost("0", "it died", 103.0)
    assert health.problems(made, 103.5) == ["worker 0 is starting"]


@pytest.mark.parametrize(
    ("now", "problem"),
    [(109.0, "worker 0 is starting"), (112.0, "worker 0 is starting for 12 s")],
)
def test_a_start_that_takes_long_is_told_with_its_length(now: float, problem: str) -> None:
    """As of a worker that dies each time before it says a word."""
    made = front()
    add(made, "0")
    made.links["0"].info.expected_at = 100.0
    assert health.problems(made, now) == [problem]


def test_a_job_that_does_not_move_shows() -> None:
    made = front("0")
    submit(made, "stuck")
    made.links["0"].info.stalled_seconds = 130.2
    assert health.state(made, 103.5) == "unavailable"
    assert health.problems(made, 103.5) == ["worker 0 has a job that has not moved for 130 s"]


def test_a_loop_of_crashes_shows_for_a_minute() -> None:
    made = front("0", "1")
    for _ in range(2):
        made.crashes.add(death("it died"))
    assert health.state(made, 103.5) == "ok"
    made.crashes.add(death("it died"))
    assert health.state(made, 103.5) == "degraded"
    assert health.problems(made, 103.5) == ["worker 0 died 3 times within the last minute"]
    assert health.state(made, 160.5) == "ok"


# --- work without success -------------------------------------------------------------------------


def test_failures_in_a_row_show_until_a_job_succeeds() -> None:
    made = front("0")
    made.metrics.job_done(0.0, 1.0, 1.0, now=100.0)
    for code in (Code.INTERNAL, Code.WORKER_CRASHED):
        made.metrics.job_failed(code, own_timeout=False)
    assert health.state(made, 103.5) == "ok"
    made.metrics.job_failed(Code.DEADLINE_EXCEEDED, own_timeout=False)
    assert health.state(made, 130.0) == "degraded"
    assert health.problems(made, 130.0) == ["no job has succeeded for 30 s, 3 failed"]
    made.metrics.job_done(0.0, 1.0, 1.0, now=131.0)
    assert health.state(made, 132.0) == "ok"


def test_without_any_success_yet() -> None:
    made = front("0")
    for _ in range(4):
        made.metrics.job_failed(Code.OUT_OF_MEMORY, own_timeout=False)
    assert health.problems(made, 130.0) == ["no job has succeeded yet, 4 failed"]


@pytest.mark.parametrize(
    ("code", "own_timeout"),
    [
        (Code.BAD_AUDIO, False),
        (Code.TOO_LARGE, False),
        (Code.CANCELLED, False),
        (Code.DEADLINE_EXCEEDED, True),
    ],
)
def test_what_a_client_does_wrong_says_nothing_of_the_daemon(code: Code, own_timeout: bool) -> None:
    made = front("0")
    for _ in range(9):
        made.metrics.job_failed(code, own_timeout)
    assert health.state(made, 103.5) == "ok"
    assert made.metrics.failed[code] == 9
