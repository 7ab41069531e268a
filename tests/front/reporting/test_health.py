"""The state of the daemon in a word, and its problems in sentences."""

from typing import Any

import pytest

from asrd.errors import Code
from asrd.front.reporting import health, snapshot
from asrd.front.scheduling.workers import Skills, WorkerState
from tests.support.reporting import ALICE, ROOT, add, crash, front, peer, submit, worker

R, S, L = WorkerState.READY, WorkerState.STARTING, WorkerState.LOADING
A, F, D = WorkerState.ASLEEP, WorkerState.FAILED, WorkerState.DOWN


def report(made: Any, now: float = 103.5) -> tuple[str, list[str]]:
    return health.state(made, now), health.problems(made, now)


@pytest.mark.parametrize(
    ("states", "expected", "problems"),
    [
        ([], "unavailable", ["no worker is configured"]),
        ([R], "ok", []),
        ([R, A], "ok", []),
        ([S], "unavailable", ["worker 0 is starting"]),
        ([S, F], "unavailable", ["worker 0 is starting", "worker 1 is failed: why"]),
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
    assert report(made) == (expected, problems)
    data = snapshot.snapshot(made, peer(ROOT), now=103.5)
    assert (data["state"], data["problems"]) == (expected, problems)
    assert [row["state"] for row in data["workers"]] == [state.value for state in states]


def test_worker_of_speakers_alone_serves_only_where_no_other_is_configured() -> None:
    made = front("0", "1")
    made.scheduler.workers["1"].skills = Skills(frozenset(), speakers=True)
    assert report(made)[0] == "ok"
    made.scheduler.workers["0"].state = WorkerState.LOADING
    assert report(made)[0] == "unavailable"
    del made.scheduler.workers["0"]
    assert report(made)[0] == "ok"


def test_full_queue_is_a_problem_once_a_job_has_waited_long() -> None:
    made = front("0", queue_max=2)
    for number in range(3):
        submit(made, f"job{number}")
        assert report(made) == ("ok", [])
    assert report(made, 110.9) == ("ok", [])
    problem = "the queue is full (2 of 2), and a job has waited for 10 s"
    assert report(made, 111.0) == ("degraded", [problem])


def test_one_waiting_job_is_no_problem() -> None:
    made = front("0", queue_max=1)
    submit(made, "runs")
    submit(made, "waits")
    assert report(made, 130.0) == ("ok", [])


def test_queue_without_places_is_no_problem() -> None:
    assert report(front("0", queue_max=0)) == ("ok", [])


def test_draining_daemon_is_unavailable() -> None:
    made = front("0")
    made.scheduler.drain(0.0)
    assert report(made) == ("unavailable", ["asrd is shutting down"])


def test_retired_worker_serves_nobody() -> None:
    made = front("0", "1")
    made.scheduler.worker_retired("0", 103.0)
    assert report(made) == ("degraded", ["worker 0 is being removed: its socket is gone"])
    assert worker(made, ALICE)["retired"]
    made.scheduler.worker_retired("1", 103.0)
    assert health.state(made, 103.5) == "unavailable"


# --- workers that look well and are not -----------------------------------------------------------


def test_sleeping_worker_counts_only_if_it_has_loaded() -> None:
    made = front("0")
    made.scheduler.worker_left("0", True, 103.0)
    assert report(made) == ("ok", [])
    made.connections["0"].info.loads = False
    problem = "worker 0 is asleep, and has not been seen to load its model"
    assert report(made) == ("unavailable", [problem])


@pytest.mark.parametrize(
    ("alive_seconds", "heard", "expected", "problems"),
    [
        (0.5, 102.5, "ok", []),
        (0.5, 102.4, "unavailable", ["worker 0 has given no sign of life for 1.1 s"]),
        (None, 0.0, "ok", []),
    ],
)
def test_worker_that_owes_two_signs_of_life_is_silent(
    alive_seconds: float | None, heard: float, expected: str, problems: list[str]
) -> None:
    made = front("0")
    info = made.connections["0"].info
    info.alive_seconds, info.heard_at = alive_seconds, heard
    assert report(made) == (expected, problems)
    made.scheduler.worker_lost("0", "it died", 103.0)
    assert health.problems(made, 103.5) == ["worker 0 is starting"]


@pytest.mark.parametrize(
    ("now", "problem"), [(109.0, "worker 0 is starting"), (112.0, "worker 0 is starting for 12 s")]
)
def test_long_start_is_reported_with_its_duration(now: float, problem: str) -> None:
    made = front()
    add(made, "0")
    made.connections["0"].info.expected_at = 100.0
    assert health.problems(made, now) == [problem]


def test_worker_that_ended_itself_is_reported_with_the_reason() -> None:
    made = front("0")
    made.connections["0"].info.ended = "a job did not stop"
    made.scheduler.worker_left("0", False, 103.0)
    assert health.problems(made, 103.5) == ["worker 0 is starting: a job did not stop"]
    assert worker(made, ALICE)["reason"] == "a job did not stop"


def test_stalled_job_is_a_problem() -> None:
    made = front("0")
    submit(made, "stuck")
    made.connections["0"].info.stalled_seconds = 130.2
    assert report(made) == (
        "unavailable",
        ["worker 0 has a job that has made no progress for 130 s"],
    )


def test_crash_loop_is_a_problem_for_a_minute() -> None:
    made = front("0", "1")
    for _ in range(3):
        assert report(made) == ("ok", [])
        made.crashes.add(crash("it died"))
    assert report(made) == ("degraded", ["worker 0 died 3 times within the last minute"])
    assert report(made, 160.5) == ("ok", [])


# --- work without success -------------------------------------------------------------------------


def test_failures_in_a_row_are_a_problem_until_a_job_succeeds() -> None:
    made = front("0")
    for code in (Code.OUT_OF_MEMORY, Code.INTERNAL, Code.WORKER_CRASHED):
        assert report(made) == ("ok", [])
        made.metrics.job_failed(code, own_timeout=False)
    assert report(made) == ("degraded", ["no job has succeeded yet, 3 failed"])
    made.metrics.job_done(0.0, 1.0, 1.0, now=131.0)
    assert report(made, 132.0) == ("ok", [])
    assert made.metrics.daemon_failures == 3
    for _ in range(3):
        made.metrics.job_failed(Code.DEADLINE_EXCEEDED, own_timeout=False)
    assert report(made, 161.0) == ("degraded", ["no job has succeeded for 30 s, 3 failed"])


@pytest.mark.parametrize(
    ("code", "own_timeout"), [(Code.BAD_AUDIO, False), (Code.DEADLINE_EXCEEDED, True)]
)
def test_failures_of_clients_are_no_problem(code: Code, own_timeout: bool) -> None:
    made = front("0")
    for _ in range(9):
        made.metrics.job_failed(code, own_timeout)
    assert report(made) == ("ok", [])
    assert made.metrics.failed[code] == 9
    assert made.metrics.daemon_failures == 0
