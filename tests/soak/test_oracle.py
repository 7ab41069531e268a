"""The campaign's judge: a campaign that could not fail would prove nothing."""

from pathlib import Path

import pytest

from tests.soak import deaths
from tests.soak.ledger import Job, Kind, Ledger
from tests.soak.oracle import Limits

LIMITS = Limits(wait=20, run=30, slow_death=9, frame=5)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "log").write_text("the daemon's last words\n")
    return Ledger("test", 7, tmp_path / "log", LIMITS)


def innocent(ledger: Ledger, timeout: float | None = None) -> Job:
    return ledger.open(Kind.INNOCENT, "payload", "yes", timeout)


def nothing() -> None:
    pass


def test_the_right_text_in_time_is_no_failure(ledger: Ledger) -> None:
    ledger.close(innocent(ledger), "transcript", "yes")
    ledger.settle()
    assert not ledger.failures


@pytest.mark.parametrize("text", ["", "no", "yes yes"])
def test_another_text_is_a_failure_with_seed_time_line_and_log(ledger: Ledger, text: str) -> None:
    ledger.fault("SIGKILL", "worker 0", 4711, nothing)
    ledger.close(innocent(ledger), "transcript", text)
    (failure,) = ledger.failures
    for part in ("seed 7", "wrong text", "SIGKILL to worker 0 (pid 4711)", "last words"):
        assert part in failure


def test_each_job_has_one_answer(ledger: Ledger) -> None:
    job = innocent(ledger)
    ledger.close(job, "transcript", "yes")
    ledger.close(job, "transcript", "yes")
    innocent(ledger)
    ledger.settle()
    twice, never = ledger.failures
    assert "answered twice" in twice
    assert "never answered" in never


@pytest.mark.parametrize("outcome", ["internal", "unavailable", "cancelled", "bad-audio", "lost"])
def test_an_innocent_job_has_no_reason_for(ledger: Ledger, outcome: str) -> None:
    ledger.close(innocent(ledger), outcome)
    assert len(ledger.failures) == 1


def test_it_crashes_its_worker_only_where_two_were_killed(ledger: Ledger) -> None:
    for kills in range(3):
        ledger.close(innocent(ledger), "worker-crashed")
        assert len(ledger.failures) == min(kills + 1, 2)
        ledger.fault("SIGKILL", "worker 0", 1, nothing)


def test_its_workers_must_have_died_under_it(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.fault("SIGKILL", "worker 0", 1, nothing)
    job = innocent(ledger)
    ledger.close(job, "worker-crashed")
    line = "worker 0: lost: it closed the connection without a word, running job"
    log = f"info asrd: {line} {job.id}\ninfo asrd: {line} another\n"
    ledger.casualties = deaths.casualties(log)
    ledger.settle()
    assert "which it did 1 times" in ledger.failures[0]
    ledger.casualties = deaths.casualties(2 * log)
    ledger.settle()
    assert len(ledger.failures) == 1


def test_a_front_that_drains_may_lose_only_what_it_did_not_accept(ledger: Ledger) -> None:
    ledger.fault("SIGTERM", "front", 1, nothing)
    ledger.close(innocent(ledger), "lost")
    assert not ledger.failures
    job = innocent(ledger)
    job.accepted = job.born
    ledger.close(job, "lost")
    assert len(ledger.failures) == 1


def test_a_job_that_was_accepted_can_not_be_refused(ledger: Ledger) -> None:
    job = innocent(ledger)
    job.accepted = job.born
    ledger.close(job, "busy")
    assert len(ledger.failures) == 1


@pytest.mark.parametrize("outcome", ["transcript", "deadline-exceeded"])
def test_later_than_its_deadline_and_grace_is_too_late(ledger: Ledger, outcome: str) -> None:
    job = innocent(ledger, timeout=1.0)
    job.born -= 1.0 + LIMITS.grace
    ledger.close(job, outcome, "yes")
    assert "too late" in ledger.failures[0]


def test_a_deadline_that_has_not_passed_is_no_excuse(ledger: Ledger) -> None:
    ledger.close(innocent(ledger, timeout=5.0), "deadline-exceeded")
    assert len(ledger.failures) == 1


def test_a_death_that_nobody_caused_is_a_failure(ledger: Ledger) -> None:
    log = "".join(
        f"2026-01-31 12:00:00,000 warning asrd-run: {line}\n"
        for line in ("asr-worker@0: killed by SIGSEGV", "asr-worker@1: killed by SIGSEGV")
    )
    ledger.fault("SIGSEGV", "worker 0", 1, nothing)
    assert deaths.unexplained(deaths.count(log), ledger) == [
        "asr-worker killed by SIGSEGV: 2 times, explained 1 times"
    ]
    ledger.open(Kind.POISON, "file")
    assert deaths.unexplained(deaths.count(log), ledger) == []
