"""Tests of the campaign's judge: a campaign that could not fail would prove nothing."""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from tests.soak import deaths, hostile, resources
from tests.soak.fairness import turns, unfair
from tests.soak.honest import Context
from tests.soak.host import Host
from tests.soak.ledger import Ledger
from tests.soak.oracle import Job, Kind, Limits
from tests.soak.report import render
from tests.soak.resources import AT_WORK, Holding, Snapshot, Trend, Watch

LIMITS = Limits(wait=20, run=30, slow_death=9, frame=5)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "log").write_text("the daemon's last line\n")
    return Ledger("test", 7, tmp_path / "log", LIMITS)


def innocent(ledger: Ledger, timeout: float | None = None, accepted: bool = False) -> Job:
    job = ledger.open(Kind.INNOCENT, "payload", "yes", timeout)
    job.accepted = job.born if accepted else None
    return job


def strike(ledger: Ledger, *faults: str) -> None:
    """Records faults such as `SIGKILL to worker 0`."""
    for fault in faults:
        what, target = fault.split(" to ")
        ledger.fault(what, target, 4711, lambda: None)


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
    ledger.settle({})
    twice, never = ledger.failures
    assert "answered twice" in twice
    assert "never answered" in never


@pytest.mark.parametrize(("died", "failures"), [(1, 1), (2, 0), (3, 1)])
def test_poison_must_kill_exactly_two_workers(ledger: Ledger, died: int, failures: int) -> None:
    job = ledger.open(Kind.POISON, "file")
    ledger.close(job, "worker-crashed")
    line = "worker 0: lost: it closed the connection without a word, running job"
    log = [f"info asrd: {line} {name}" for name in (*[job.id] * died, "another")]
    ledger.settle(deaths.casualties(log))
    assert [f"its workers died {died} times" in failure for failure in ledger.failures] == (
        [True] * failures
    )


def test_lasting_fault_acts_during_its_block_and_is_counted_once(ledger: Ledger) -> None:
    ledger.limits = replace(LIMITS, quick_death=0)
    with ledger.lasting_fault("no space left", "disk"):
        ledger.close(ledger.open(Kind.POISON, "file"), "worker-crashed")
        assert ledger.striking("disk")
    assert not ledger.striking("disk")
    # The deaths of its workers could not be logged on the full disk either.
    ledger.settle({})
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


# --- growth ---------------------------------------------------------------------------------------

SMALL = Holding(26_000, 10, 1)


def lived(hold: Callable[[int], Holding]) -> Trend:
    """The trend of a process that lived an hour; `hold` gives its holding at each second."""
    trend = Trend(1)
    for second in range(3_600):
        trend.add(float(second), hold(second))
    return trend


@pytest.mark.parametrize("at", [1_000, 2_250, 3_000])
def test_single_step_of_memory_is_no_growth_of_a_worker(at: int) -> None:
    """A front may not grow by it, and no job needs descriptors or threads for good."""
    trend = lived(lambda s: SMALL._replace(rss_kib=26_000 + (s > at) * 32_000))
    assert trend.rise(but_a_step=True) == Holding(0, 0, 0)
    rise = trend.rise()
    assert rise is not None and rise.rss_kib > 0
    rise = lived(lambda s: SMALL._replace(descriptors=10 + (s > at) * 80)).rise(but_a_step=True)
    assert rise is not None and rise.exceeds(AT_WORK)


@pytest.mark.parametrize(
    "hold",
    [
        lambda s: SMALL._replace(rss_kib=26_000 + s % 7 * 9_000),
        lambda s: SMALL if s < 300 else SMALL._replace(rss_kib=99_000),
    ],
)
def test_rises_and_falls_and_a_large_start_are_no_growth(hold: Callable[[int], Holding]) -> None:
    rise = lived(hold).rise()
    assert rise is not None and not rise.exceeds(AT_WORK)


@pytest.mark.parametrize(
    "leak",
    [
        lambda s: SMALL._replace(rss_kib=26_000 + 12 * s + s % 7 * 9_000),
        lambda s: SMALL._replace(descriptors=10 + s // 200 + s % 5),
        lambda s: SMALL._replace(threads=1 + s // 600),
    ],
)
def test_slow_leak_under_rises_and_falls_is_found(leak: Callable[[int], Holding]) -> None:
    trend = lived(leak)
    for but_a_step in False, True:
        rise = trend.rise(but_a_step)
        assert rise is not None and rise.exceeds(AT_WORK)
    # The trend of a long life is still a few numbers.
    assert len(trend.floors) <= 64


@pytest.mark.parametrize(
    ("change", "files", "found"),
    [
        ({"descriptors": 11}, set(), "front grew: "),
        ({"threads": 2}, set(), "front grew: "),
        ({"rss_kib": 60_000}, set(), "front grew: "),
        ({"rss_kib": 30_000}, set(), ""),
        ({}, {"left"}, "files left behind: ['left']"),
    ],
)
def test_growth_at_rest_is_found(change: dict[str, int], files: set[str], found: str) -> None:
    first = Snapshot({"front": SMALL}, {"asrd.sock"})
    last = Snapshot({"front": SMALL._replace(**change)}, {"asrd.sock", *files})
    grown = first.growth(last)
    assert len(grown) == bool(found)
    assert "".join(grown).startswith(found)


# --- the watch ------------------------------------------------------------------------------------


@pytest.fixture
def watch(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Looks once at a daemon with this front, these workers and so many processes."""
    answer: dict[str, Any] = {}
    host = SimpleNamespace(socket="", workers=("0", "1"), helpers=dict, holding=lambda pid: SMALL)
    monkeypatch.setattr(resources, "status", lambda socket: answer)
    watching = Watch(ledger, cast(Host, host))

    def look(front: int, state: str = "ready", processes: int = 3) -> None:
        answer.update(pid=front, workers=[{"name": "0", "pid": 2, "state": state}])
        host.processes = lambda: processes
        watching._look()

    return look


def test_watch_reports_front_that_ends_by_itself(
    ledger: Ledger, watch: Callable[..., None]
) -> None:
    watch(4711)
    strike(ledger, "SIGKILL to front")
    watch(101)
    assert not ledger.failures
    watch(102)
    assert "the front 101 ended, and nobody killed it" in ledger.failures[0]


def test_watch_reports_surplus_process(ledger: Ledger, watch: Callable[..., None]) -> None:
    watch(100, processes=4)
    assert "4 processes" in ledger.failures[0]


def test_watch_reports_workers_that_never_return(
    ledger: Ledger, watch: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(100)
    later = time.monotonic() + LIMITS.slow_death + LIMITS.grace + 1
    monkeypatch.setattr(resources, "time", SimpleNamespace(monotonic=lambda: later))
    watch(100, state="loading")
    assert "no worker at all" in ledger.failures[0]


# --- several users --------------------------------------------------------------------------------


def done(second: float, uid: int, waited: float, name: str) -> str:
    return (
        f"2026-01-31 12:00:{second:06.3f} asrd[7]: done: 1.0 s of audio, waited {waited:.3f} s, "
        f"ran 0.500 s on worker 0 job_id={name} peer_uid={uid}\n"
    ).replace(".", ",", 1)


FLOOD = [done(10 + n / 2, 1000, 2.0, f"j{n}") for n in range(8)]
LOST = "2026-01-31 12:00:11,000 asrd[7]: worker 0: lost: it broke, running job mine (1 s)\n"


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (
            [done(14.0, 1001, 4.0, "mine")],
            ["user 1000 was served 7 times while job mine of user 1001 waited 4.0 s"],
        ),
        ([done(11.2, 1001, 1.0, "mine")], []),
        # The log of a job that ran twice has only its second start.
        ([LOST, done(14.0, 1001, 4.0, "mine")], []),
    ],
)
def test_user_served_many_times_before_another_is_unfair(log: list[str], found: list[str]) -> None:
    assert unfair(turns([*FLOOD, *log]), 1001, 3) == found


@pytest.fixture
def as_user(ledger: Ledger) -> Context:
    """The context of user 1000, for a test that plays the daemon."""
    return Context(random.Random(1), ledger, [], "", uid=1000)


@pytest.mark.parametrize("ended", [0, 1])
def test_cancel_of_another_users_job_is_found(
    as_user: Context, monkeypatch: pytest.MonkeyPatch, ended: int
) -> None:
    theirs = as_user.ledger.open(Kind.INNOCENT, "payload", "yes", uid=1001)
    client = MagicMock()
    cancel = client.return_value.__enter__.return_value.cancel
    cancel.return_value = ended
    monkeypatch.setattr("asrd.Client", client)
    hostile.meddle(as_user)
    assert len(as_user.ledger.failures) == ended
    cancel.assert_called_once_with(theirs.id)


@pytest.mark.parametrize(("owner", "seen"), [(1000, 0), (1001, 1)])
def test_view_of_another_users_job_is_found(
    as_user: Context, monkeypatch: pytest.MonkeyPatch, owner: int, seen: int
) -> None:
    peer = MagicMock()
    status = {"workers": [{"last_death": f"killed, running job j5u{owner} (1 s)"}]}
    peer.connect.return_value.__enter__.return_value.receive.side_effect = [
        SimpleNamespace(data=status),
        None,
    ]
    monkeypatch.setattr(hostile, "Peer", peer)
    hostile.spy(as_user)
    assert len(as_user.ledger.failures) == seen


@pytest.mark.parametrize(
    ("fault", "overdue"),
    [("SIGSTOP to front", False), ("SIGKILL to front", True), ("SIGSTOP to worker 0", True)],
)
def test_stalled_client_may_stay_longer_while_front_is_stopped(
    as_user: Context, fault: str, overdue: bool
) -> None:
    as_user.ledger.limits = replace(LIMITS, frame=0.5, grace=0.5, slow_death=60)
    begun = time.monotonic() - 2
    assert not hostile._overdue(as_user, begun + 2)
    assert hostile._overdue(as_user, begun)
    strike(as_user.ledger, fault)
    assert hostile._overdue(as_user, begun) == overdue
