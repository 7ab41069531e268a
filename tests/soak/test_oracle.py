"""Tests of the campaign's judge: a campaign that could not fail would prove nothing."""

import time
from collections import deque
from dataclasses import replace

import pytest

from tests.soak import deaths
from tests.soak.ledger import Ledger
from tests.soak.oracle import Kind
from tests.soak.report import render
from tests.support.judging import LIMITS, PID, innocent, strike

KILLED = "SIGKILL to worker 0"


@pytest.mark.parametrize(
    ("outcome", "accepted", "faults", "kept"),
    [
        ("transcript", True, (), True),
        ("busy", False, (), True),
        ("busy", True, (), False),
        ("internal", False, (), False),
        ("cancelled", False, (), False),
        ("bad-audio", False, (), False),
        ("unavailable", True, ("no model to worker 0",), False),
        ("unavailable", True, ("no model to worker 0", "stop of its socket to worker 1"), True),
        ("worker-crashed", True, (KILLED,), False),
        ("worker-crashed", True, (KILLED, KILLED), True),
        # A restart is no excuse for a crash.
        ("worker-crashed", True, ("restart to worker 0", "SIGTERM to worker 0"), False),
        ("worker-crashed", True, (KILLED, "stop of its socket to worker 0"), False),
        ("lost", False, (), False),
        # A front that drains answers the jobs that it has accepted.
        ("lost", False, ("SIGTERM to front",), True),
        ("lost", True, ("SIGTERM to front",), False),
        ("lost", True, ("restart to front",), False),
        ("lost", True, ("restart to front", "SIGTERM to front"), True),
        ("lost", True, ("restart to front", "SIGTERM to worker 0"), False),
        ("lost", True, ("SIGKILL to front",), True),
        ("lost", True, ("SIGSTOP to front",), True),
        # A full disk is an excuse for `busy` alone.
        ("busy", False, ("no space left to disk",), True),
        ("lost", True, ("no space left to disk",), False),
        ("internal", True, ("no space left to disk",), False),
        ("out-of-memory", True, ("no space left to disk",), False),
        ("worker-crashed", True, ("no space left to disk",), False),
    ],
)
def test_judge_accepts_outcome_only_with_a_reason(
    ledger: Ledger, outcome: str, accepted: bool, faults: tuple[str, ...], kept: bool
) -> None:
    strike(ledger, *faults)
    ledger.close(innocent(ledger, accepted=accepted), outcome, "yes")
    assert len(ledger.failures) == (not kept)


@pytest.mark.parametrize(
    ("windows", "ahead", "seconds", "faults", "problem"),
    [
        (1, 0, 19, (), None),
        (1, 0, 21, (), "too late"),
        # The bound grows with the work before it, and with its own.
        (1, 50, 69, (), None),
        (1, 50, 71, (), "too late"),
        (20, 0, 209, (), None),
        (20, 0, 211, (), "too late"),
        # Only a fault lets a job wait for its worker.
        (1, 0, 68, (KILLED,), None),
        (1, 0, 70, (KILLED,), "too late"),
    ],
)
def test_job_that_starves_is_found(
    ledger: Ledger,
    windows: int,
    ahead: int,
    seconds: float,
    faults: tuple[str, ...],
    problem: str | None,
) -> None:
    ledger.open(Kind.HURRIED, "payload", windows=ahead)
    strike(ledger, *faults)
    job = innocent(ledger, accepted=True, windows=windows)
    job.accepted = job.born = job.born - seconds
    ledger.close(job, "transcript", "yes")
    assert [problem in failure for failure in ledger.failures if problem] == (
        [] if problem is None else [True]
    )
    assert len(ledger.failures) == (problem is not None)


@pytest.mark.parametrize(("faults", "kept"), [((), False), ((KILLED,), True)])
def test_long_wait_is_no_answer_unless_a_fault_kept_workers_away(
    ledger: Ledger, faults: tuple[str, ...], kept: bool
) -> None:
    ledger.open(Kind.HURRIED, "payload", windows=100)
    strike(ledger, *faults)
    job = innocent(ledger, accepted=True)
    job.accepted = job.born = job.born - LIMITS.wait
    ledger.close(job, "deadline-exceeded")
    assert len(ledger.failures) == (not kept)


@pytest.mark.parametrize("text", ["", "no", "yes yes"])
def test_wrong_text_is_reported_with_seed_timeline_and_log(ledger: Ledger, text: str) -> None:
    strike(ledger, KILLED)
    ledger.close(innocent(ledger), "transcript", text)
    (failure,) = ledger.failures
    for part in ("seed 7", "wrong text", "SIGKILL to worker 0 (pid 4711)", "last line"):
        assert part in failure


def test_judge_rejects_poison_that_got_a_transcript(ledger: Ledger) -> None:
    ledger.close(ledger.open(Kind.POISON, "file", "yes"), "transcript", "yes")
    assert len(ledger.failures) == 1


@pytest.mark.parametrize(
    ("outcome", "seconds", "problem"),
    [
        ("transcript", 1.0 + LIMITS.grace, "too late"),
        ("deadline-exceeded", 1.0 + LIMITS.grace, "too late"),
        ("deadline-exceeded", 0.0, "no honest answer"),
    ],
)
def test_judge_rejects_answer_at_the_wrong_time(
    ledger: Ledger, outcome: str, seconds: float, problem: str
) -> None:
    job = innocent(ledger, timeout=1.0)
    job.born -= seconds
    ledger.close(job, outcome, "yes")
    assert problem in ledger.failures[0]


# --- the whole campaign ---------------------------------------------------------------------------


def test_each_job_must_have_exactly_one_answer(ledger: Ledger) -> None:
    job = innocent(ledger)
    ledger.close(job, "transcript", "yes")
    ledger.close(job, "transcript", "yes")
    innocent(ledger)
    settle(ledger)
    twice, never = ledger.failures
    assert "answered twice" in twice
    assert "never answered" in never


def lost(pid: int, *jobs: str, turn: str | None = None) -> list[str]:
    """The front's log entries about the end of a worker with these jobs."""
    how = "warning asrd: worker 0: lost: its connection ended without notice, running job"
    return [
        f"{how} {job} (attempt 1, 170 bytes{', in its turn' if job == turn else ''}) worker=0 "
        f"worker_pid={pid} job_id={job} peer_uid=0"
        for job in jobs
    ]


def settle(ledger: Ledger, *logs: list[str]) -> list[str]:
    """The failures that settling the campaign with this log adds."""
    before = len(ledger.failures)
    ledger.settle(deaths.casualties(deaths.losses(line for log in logs for line in log)))
    return ledger.failures[before:]


@pytest.mark.parametrize(("died", "struck", "kept"), [(1, 0, 0), (2, 0, 1), (3, 0, 0), (3, 1, 1)])
def test_poison_must_kill_exactly_two_workers(
    ledger: Ledger, died: int, struck: int, kept: int
) -> None:
    """A fault may have killed others meanwhile, before the poison was at its place."""
    job = ledger.open(Kind.POISON, "file")
    ledger.close(job, "worker-crashed")
    for pid in range(struck):
        strike(ledger, KILLED, pid=pid)
    log = [lost(pid, "another", job.id, turn=job.id) for pid in range(died)]
    failures = settle(ledger, *log)
    assert [f"{died} workers died in its turn" in each for each in failures] == [True] * (not kept)


@pytest.mark.parametrize(
    ("turn", "pids", "kept"),
    [
        # Its workers were killed in its turn; it is not known in whose; in another's; by a poison.
        ("mine", (PID, PID + 1), True),
        (None, (PID, PID + 1), True),
        ("poison", (PID, PID + 1), False),
        ("mine", (1, 2), False),
        ("mine", (PID, 2), False),
    ],
)
def test_innocent_must_not_be_blamed_for_deaths_in_anothers_turn(
    ledger: Ledger, turn: str | None, pids: tuple[int, int], kept: bool
) -> None:
    job = innocent(ledger, accepted=True)
    for pid in (PID, PID + 1):
        strike(ledger, KILLED, pid=pid)
    ledger.close(job, "worker-crashed")
    assert not ledger.failures
    mine = job.id if turn == "mine" else turn
    failures = settle(ledger, *(lost(pid, job.id, "poison", turn=mine) for pid in pids))
    assert len(failures) == (not kept)


def test_lasting_fault_acts_during_its_block_and_is_counted_once(ledger: Ledger) -> None:
    ledger.limits = replace(LIMITS, quick_death=0)
    with ledger.lasting_fault("no space left", "disk"):
        ledger.close(ledger.open(Kind.POISON, "file"), "worker-crashed")
        assert ledger.striking("disk")
    assert not ledger.striking("disk")
    # The deaths of its workers could not be logged on the full disk either.
    settle(ledger)
    assert not ledger.failures
    assert len(ledger.faults) == ledger.struck["no space left", "disk"] == 1


# The log lines of `asrd run` and of systemd.
SEGFAULTS = [
    [f"2026-01-31 12:00:00,000 warning asrd-run: asr-worker@{n}: killed by SIGSEGV" for n in "01"],
    [
        f"2026-01-31 12:00:00,000 systemd[1]: asr-worker@{n}.service: "
        "Main process exited, code=killed, status=11/SEGV"
        for n in "01"
    ],
]


@pytest.mark.parametrize("log", SEGFAULTS)
def test_death_without_a_cause_is_a_failure(ledger: Ledger, log: list[str]) -> None:
    strike(ledger, "SIGSEGV to worker 0")
    assert deaths.unexplained(deaths.count(log), ledger) == [
        "asr-worker killed by SIGSEGV: 2 times, explained 1 times"
    ]
    job = ledger.open(Kind.POISON, "file")
    assert deaths.unexplained(deaths.count(log), ledger) == []
    ledger.close(job, "worker-crashed")
    assert deaths.unexplained(deaths.count(log), ledger) == []


@pytest.mark.parametrize(
    ("line", "death", "cause"),
    [
        ("Watchdog timeout (limit 5s)!", "killed by the watchdog", "SIGSTOP to worker 0"),
        ("start operation timed out.", "killed by the watchdog", "SIGSTOP to front"),
        ("code=exited, status=78/CONFIG", "asr-worker exited with 78", "no model to worker 0"),
        ("code=dumped, status=6/ABRT", "asr-worker killed by SIGABRT", "SIGABRT to worker 1"),
        # systemd could not set up the unit.
        ("code=exited, status=217/USER", "asr-worker exited with 217", "no space left to disk"),
    ],
)
def test_death_in_systemds_log_needs_a_cause(
    ledger: Ledger, line: str, death: str, cause: str
) -> None:
    line = line.replace("code=", "Main process exited, code=")
    found = deaths.count([f"2026-01-31 12:00:00,000 systemd[1]: asr-worker@0.service: {line}"])
    assert found == {death: 1}
    assert len(deaths.unexplained(found, ledger)) == 1
    strike(ledger, cause)
    assert not deaths.unexplained(found, ledger)


def test_kept_promises_take_no_memory(ledger: Ledger) -> None:
    for _ in range(1_000):
        ledger.close(innocent(ledger), "transcript", "yes")
        strike(ledger, KILLED)
    assert not ledger.jobs
    assert ledger.outcomes == {(Kind.INNOCENT, "payload", "transcript"): 1_000}
    now = time.monotonic()
    ledger.faults = deque(replace(fault, end=now - 1e4) for fault in ledger.faults)
    strike(ledger, KILLED)
    assert len(ledger.faults) == 1
    assert ledger.struck["SIGKILL", "worker 0"] == 1_001


def test_report_counts_outcomes_and_bounds_failures(ledger: Ledger) -> None:
    ledger.close(innocent(ledger), "transcript", "yes")
    for _ in range(1_000):
        ledger.close(innocent(ledger), "internal")
    assert len(ledger.failures) + ledger.unshown_failures == 1_000
    assert len(ledger.failures) < 100
    report = render(ledger)
    assert "1000 BROKEN PROMISES" in report
    assert "| innocent | 1000 | 1 |" in report
