"""The campaign's judge: a campaign that could not fail would prove nothing."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
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
from tests.soak.ledger import Job, Kind, Ledger
from tests.soak.oracle import Limits
from tests.soak.report import render
from tests.soak.resources import AT_WORK, Holding, Snapshot, Trend, Watch

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
    ledger.settle({})
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
    ledger.settle({})
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
    ledger.settle(deaths.casualties(log.splitlines()))
    assert "which it did 1 times" in ledger.failures[0]
    ledger.settle(deaths.casualties(2 * log.splitlines()))
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


# The same in the words of `asrd run` and of systemd.
SEGFAULTS = [
    [f"2026-01-31 12:00:00,000 warning asrd-run: asr-worker@{n}: killed by SIGSEGV" for n in "01"],
    [
        f"2026-01-31 12:00:00,000 systemd[1]: asr-worker@{n}.service: "
        "Main process exited, code=killed, status=11/SEGV"
        for n in "01"
    ],
]


@pytest.mark.parametrize("log", SEGFAULTS)
def test_a_death_that_nobody_caused_is_a_failure(ledger: Ledger, log: list[str]) -> None:
    ledger.fault("SIGSEGV", "worker 0", 1, nothing)
    assert deaths.unexplained(deaths.count(log), ledger) == [
        "asr-worker killed by SIGSEGV: 2 times, explained 1 times"
    ]
    job = ledger.open(Kind.POISON, "file")
    assert deaths.unexplained(deaths.count(log), ledger) == []
    ledger.close(job, "worker-crashed")
    assert deaths.unexplained(deaths.count(log), ledger) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("Main process exited, code=exited, status=78/CONFIG", "asr-worker exited with 78"),
        ("Main process exited, code=dumped, status=6/ABRT", "asr-worker killed by SIGABRT"),
        ("Watchdog timeout (limit 5s)!", "killed by the watchdog"),
        ("start operation timed out. Terminating.", "killed by the watchdog"),
    ],
)
def test_what_systemd_says_of_a_death_is_understood(line: str, what: str) -> None:
    log = [f"2026-01-31 12:00:00,000 systemd[1]: asr-worker@0.service: {line}"]
    assert deaths.count(log) == {what: 1}


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
def test_only_a_front_that_was_killed_may_lose_what_it_accepted(ledger: Ledger, fault: str) -> None:
    for number, what in enumerate(("restart", fault)):
        ledger.fault(what, "front", 1, nothing)
        job = innocent(ledger)
        job.accepted = job.born
        ledger.close(job, "lost")
        assert len(ledger.failures) == 1, number


def test_a_restart_is_no_excuse_for_a_crash(ledger: Ledger) -> None:
    for what in ("restart", "SIGTERM", "stop of its socket"):
        ledger.fault(what, "worker 0", 1, nothing)
    ledger.close(innocent(ledger), "worker-crashed")
    assert len(ledger.failures) == 1


@pytest.mark.parametrize("outcome", ["lost", "internal", "out-of-memory", "worker-crashed"])
def test_a_full_disk_is_no_excuse_for_anything_but_busy(ledger: Ledger, outcome: str) -> None:
    with ledger.lasting_fault("no space left", "disk"):
        ledger.close(innocent(ledger), "busy")
        assert not ledger.failures
        job = innocent(ledger)
        job.accepted = job.born
        ledger.close(job, outcome)
    assert len(ledger.failures) == 1


def test_a_lasting_fault_acts_all_the_while_and_is_told_once(ledger: Ledger) -> None:
    ledger.limits = replace(LIMITS, quick_death=0)
    with ledger.lasting_fault("no space left", "disk"):
        job = ledger.open(Kind.POISON, "file", None, None)
        ledger.close(job, "worker-crashed")
        assert ledger.striking("disk")
    assert not ledger.striking("disk")
    # Its workers' deaths, too, were to be written to the full disk.
    ledger.settle({})
    assert not ledger.failures
    assert len(ledger.faults) == ledger.struck["no space left", "disk"] == 1


def test_nobody_can_serve_only_where_every_worker_was_kept_from_it(ledger: Ledger) -> None:
    ledger.fault("no model", "worker 0", 0, nothing)
    ledger.close(innocent(ledger), "unavailable")
    assert len(ledger.failures) == 1
    ledger.fault("stop of its socket", "worker 1", 0, nothing)
    ledger.close(innocent(ledger), "unavailable")
    assert len(ledger.failures) == 1


def test_what_systemd_cannot_start_is_the_full_disks_fault_only(ledger: Ledger) -> None:
    line = "asr-worker@0.service: Main process exited, code=exited, status=217/USER"
    found = deaths.count([f"2026-01-31 12:00:00,000 systemd[1]: {line}"])
    assert len(deaths.unexplained(found, ledger)) == 1
    ledger.fault("no space left", "disk", 0, nothing)
    assert not deaths.unexplained(found, ledger)


def test_poison_that_is_heard_is_a_failure(ledger: Ledger) -> None:
    ledger.close(ledger.open(Kind.POISON, "file", "yes"), "transcript", "yes")
    assert len(ledger.failures) == 1


def test_poison_must_have_been_given_its_second_chance(ledger: Ledger) -> None:
    job = ledger.open(Kind.POISON, "file")
    ledger.close(job, "worker-crashed")
    ledger.settle({job.id: 1})
    assert "which it did 1 times" in ledger.failures[0]


def test_poison_may_not_kill_a_third_time(ledger: Ledger) -> None:
    job = ledger.open(Kind.POISON, "file")
    ledger.close(job, "worker-crashed")
    ledger.settle({job.id: 3})
    assert "which it did 3 times" in ledger.failures[0]


def test_what_kept_its_promise_takes_no_memory(ledger: Ledger) -> None:
    for _ in range(1_000):
        ledger.close(innocent(ledger), "transcript", "yes")
        ledger.fault("SIGKILL", "worker 0", 1, nothing)
    assert not ledger.jobs
    assert ledger.outcomes == {(Kind.INNOCENT, "payload", "transcript"): 1_000}
    now = time.monotonic()
    ledger.faults = deque(replace(fault, end=now - 1e4) for fault in ledger.faults)
    ledger.fault("SIGKILL", "worker 0", 1, nothing)
    assert len(ledger.faults) == 1
    assert ledger.struck["SIGKILL", "worker 0"] == 1_001


def test_a_daemon_that_breaks_everything_is_told_of_in_bounds(ledger: Ledger) -> None:
    for _ in range(1_000):
        ledger.close(innocent(ledger), "internal")
    assert len(ledger.failures) + ledger.unshown_failures == 1_000
    assert len(ledger.failures) < 100
    assert "1000 BROKEN PROMISES" in render(ledger, [])


def test_the_report_counts_each_outcome(ledger: Ledger) -> None:
    ledger.close(innocent(ledger), "transcript", "yes")
    ledger.close(innocent(ledger), "busy")
    assert "| innocent | 1 | 1 |" in render(ledger, [("figure", "7")])


# --- what grows -----------------------------------------------------------------------------------

SMALL = Holding(26_000, 10, 1)


def lived(seconds: int, hold: Callable[[int], Holding]) -> Trend:
    """A process of which `hold` says what it holds at each second."""
    trend = Trend(1)
    for second in range(seconds):
        trend.add(float(second), hold(second))
    return trend


def test_what_goes_up_and_down_does_not_grow() -> None:
    trend = lived(3_600, lambda s: replace(SMALL, rss_kib=26_000 + s % 7 * 9_000))
    assert trend.rise() == Holding(0, 0, 0)


@pytest.mark.parametrize("at", [1_000, 2_250, 3_000])
def test_one_job_that_needs_much_is_no_growth(at: int) -> None:
    """Of a worker; of a front it is, and no job needs descriptors or threads for good."""
    trend = lived(3_600, lambda s: replace(SMALL, rss_kib=26_000 + (s > at) * 32_000))
    assert trend.rise(but_a_step=True) == Holding(0, 0, 0)
    rise = trend.rise()
    assert rise is not None and rise.rss_kib > 0
    rise = lived(3_600, lambda s: replace(SMALL, descriptors=10 + (s > at) * 80)).rise(True)
    assert rise is not None and rise.exceeds(AT_WORK)


def test_what_it_takes_at_first_is_no_growth() -> None:
    rise = lived(3_600, lambda s: SMALL if s < 300 else replace(SMALL, rss_kib=99_000)).rise()
    assert rise is not None and not rise.exceeds(AT_WORK)


@pytest.mark.parametrize(
    "leak",
    [
        lambda s: replace(SMALL, rss_kib=26_000 + 12 * s + s % 7 * 9_000),
        lambda s: replace(SMALL, descriptors=10 + s // 200 + s % 5),
        lambda s: replace(SMALL, threads=1 + s // 600),
    ],
)
def test_a_slow_leak_beneath_the_ups_and_downs_shows(leak: Callable[[int], Holding]) -> None:
    trend = lived(3_600, leak)
    for but_a_step in False, True:
        rise = trend.rise(but_a_step)
        assert rise is not None and rise.exceeds(AT_WORK)
    # However long it lives, it is a few numbers.
    assert len(trend.floors) <= 64


def test_at_rest_one_descriptor_too_many_is_growth() -> None:
    first = Snapshot({"front": SMALL}, {"asrd.sock"})
    for now in (
        replace(SMALL, descriptors=11),
        replace(SMALL, threads=2),
        replace(SMALL, rss_kib=60_000),
    ):
        assert len(first.growth(Snapshot({"front": now}, {"asrd.sock"}))) == 1
    assert not first.growth(Snapshot({"front": replace(SMALL, rss_kib=30_000)}, {"asrd.sock"}))
    assert first.growth(Snapshot({"front": SMALL}, {"asrd.sock", "left"})) == [
        "files left behind: ['left']"
    ]


# --- the watch ------------------------------------------------------------------------------------


@pytest.fixture
def watch(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Look once at a daemon that has this front, these workers and this many processes."""
    told: dict[str, Any] = {}
    host = SimpleNamespace(
        socket="", workers=("0", "1"), spares=0, helpers=dict, holding=lambda pid: SMALL
    )
    monkeypatch.setattr(resources, "status", lambda socket: told)
    watching = Watch(ledger, cast(Host, host))

    def look(front: int, state: str = "ready", processes: int = 3) -> None:
        told.update(pid=front, workers=[{"name": "0", "pid": 2, "state": state}])
        host.processes = lambda: processes
        watching._look()

    yield look


def test_a_front_that_ends_by_itself_is_seen(ledger: Ledger, watch: Callable[..., None]) -> None:
    watch(100)
    ledger.fault("SIGKILL", "front", 100, nothing)
    watch(101)
    assert not ledger.failures
    watch(102)
    assert "the front 101 ended, and nobody killed it" in ledger.failures[0]


def test_a_process_too_many_is_seen(ledger: Ledger, watch: Callable[..., None]) -> None:
    watch(100, processes=4)
    assert "4 processes" in ledger.failures[0]


def test_workers_that_never_come_back_are_seen(
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


def test_a_user_who_is_served_again_and_again_before_another_is_unfair() -> None:
    flood = [done(10 + n / 2, 1000, 2.0, f"j{n}") for n in range(8)]
    patient = [*flood, done(14.0, 1001, 4.0, "mine")]
    assert unfair(turns(patient), 1001, 3) == [
        "user 1000 was served 7 times while job mine of user 1001 waited 4.0 s"
    ]
    fair = [*flood, done(11.2, 1001, 1.0, "mine")]
    assert not unfair(turns(fair), 1001, 3)


def test_a_job_that_ran_twice_is_no_witness() -> None:
    lost = "2026-01-31 12:00:11,000 asrd[7]: worker 0: lost: it broke, running job mine (1 s)\n"
    flood = [done(10 + n / 2, 1000, 2.0, f"j{n}") for n in range(8)]
    assert not unfair(turns([*flood, lost, done(14.0, 1001, 4.0, "mine")]), 1001, 3)


@pytest.fixture
def as_user(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Context:
    """User 1000, to whom nothing answers but what a test puts in the daemon's place."""
    return Context(random.Random(1), ledger, [], "", uid=1000)


def test_whoever_cancels_another_users_job_is_seen(
    as_user: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = as_user.ledger.open(Kind.INNOCENT, "payload", "yes", uid=1001)
    for ended in (0, 1):
        client = MagicMock()
        client.return_value.__enter__.return_value.cancel.return_value = ended
        monkeypatch.setattr("asrd.Client", client)
        hostile.meddle(as_user)
        assert len(as_user.ledger.failures) == ended
    client.return_value.__enter__.return_value.cancel.assert_called_once_with(theirs.id)


@pytest.mark.parametrize(
    ("what", "target", "overdue"),
    [("SIGSTOP", "front", False), ("SIGKILL", "front", True), ("SIGSTOP", "worker 0", True)],
)
def test_a_stalled_client_has_longer_only_where_the_front_is_stopped(
    as_user: Context, what: str, target: str, overdue: bool
) -> None:
    as_user.ledger.limits = replace(LIMITS, frame=0.5, grace=0.5, slow_death=60)
    begun = time.monotonic() - 2
    assert not hostile._overdue(as_user, begun + 2)
    assert hostile._overdue(as_user, begun)
    as_user.ledger.fault(what, target, 1, nothing)
    assert hostile._overdue(as_user, begun) == overdue


@pytest.mark.parametrize(("owner", "seen"), [(1000, 0), (1001, 1)])
def test_whoever_sees_another_users_job_is_seen(
    as_user: Context, monkeypatch: pytest.MonkeyPatch, owner: int, seen: int
) -> None:
    peer = MagicMock()
    told = {"workers": [{"last_death": f"killed, running job j5u{owner} (1 s)"}]}
    peer.connect.return_value.__enter__.return_value.receive.side_effect = [
        SimpleNamespace(data=told),
        None,
    ]
    monkeypatch.setattr(hostile, "Peer", peer)
    hostile.spy(as_user)
    assert len(as_user.ledger.failures) == seen
