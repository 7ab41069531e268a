"""The record of a worker's crash, and what each peer sees of it."""

import pytest

from asrd.front.reporting.crashes import KEPT, Crash, Crashes, JobRef
from asrd.wire.records import LastProcess
from tests.support.reporting import ALICE, BOB, CAROL, ROOT, peer

OVERFLOW = 65534
HERS = JobRef(
    "hers", peer(ALICE), audio_bytes=320, audio_seconds=0.01, attempt=2, trace_id="trace-1"
)
HIS = JobRef("his", peer(BOB), audio_bytes=64)


def crash(*jobs: JobRef, pid: int | None = 7, at: float = 50.0, worker: str = "0") -> Crash:
    return Crash(worker, 1_000_000_000.0625, at, "it closed", jobs, pid, "tiny")


def test_data_of_a_crash() -> None:
    made = crash(HERS)
    made.explain(LastProcess("killed by SIGSEGV", 7, "the end\x1b[2J"))
    assert made.as_data(peer(ROOT), outsider=False) == {
        "time": "2001-09-09T01:46:40.062Z",
        "worker": "0",
        "pid": 7,
        "model": "tiny",
        "exit": "killed by SIGSEGV",
        "noticed": "it closed",
        "stderr": "the end\\x1b[2J",
        "jobs": [
            {
                "job_id": "hers",
                "trace_id": "trace-1",
                "uid": 1000,
                "attempt": 2,
                "in_turn": False,
                "audio_bytes": 320,
                "audio_seconds": 0.01,
            }
        ],
        "other_jobs": 0,
    }
    assert made.summary(peer(ROOT)) == "killed by SIGSEGV, it closed, running job hers"


@pytest.mark.parametrize(
    ("uid", "outsider", "jobs", "running", "stderr"),
    [
        (ROOT, True, ["hers", "his", "whose"], "job hers, job his, job whose", "a path"),
        (ALICE, False, ["hers"], "job hers, 2 of others", "a path"),
        (ALICE, True, ["hers"], "job hers, 2 of others", None),
        (BOB, False, ["his"], "job his, 2 of others", "a path"),
        (CAROL, True, [], "3 of others", None),
        # Users without a number in our namespace are not one user.
        (OVERFLOW, True, [], "3 of others", None),
    ],
)
def test_crash_names_jobs_to_their_owners_and_root_alone(
    uid: int, outsider: bool, jobs: list[str], running: str, stderr: str | None
) -> None:
    made = crash(HERS, HIS, JobRef("whose", peer(OVERFLOW)))
    made.explain(LastProcess("exited with 1", 7, "a path"))
    data = made.as_data(peer(uid), outsider)
    assert [job["job_id"] for job in data["jobs"]] == jobs
    assert (data["other_jobs"], data["stderr"]) == (3 - len(jobs), stderr)
    assert ("trace-1" in str(data)) == ("hers" in jobs)
    assert made.summary(peer(uid)) == f"exited with 1, it closed, running {running}"


@pytest.mark.parametrize(
    ("last", "same"),
    [
        (LastProcess("killed by SIGSEGV", 7), True),
        (LastProcess("killed by SIGSEGV"), True),
        (LastProcess(None, 7, "what(): bad"), True),
        # Another process died in between, and never connected.
        (LastProcess("killed by SIGSEGV", 8), False),
        (LastProcess(None, 7), False),
    ],
)
def test_report_of_the_next_process_belongs_to_the_crash_with_its_pid(
    last: LastProcess, same: bool
) -> None:
    assert crash().is_of(last) is same


@pytest.mark.parametrize(
    ("jobs", "loading", "doing"),
    [
        ((), False, "idle"),
        ((), True, "while it loaded its model"),
        ((HIS,), False, "running job his"),
    ],
)
def test_summary_says_what_the_worker_did(
    jobs: tuple[JobRef, ...], loading: bool, doing: str
) -> None:
    made = crash(*jobs)
    made.loading = loading
    assert made.summary(peer(ROOT)) == f"it closed, {doing}"


def test_clients_are_told_the_cause_of_an_earlier_crash_of_their_job() -> None:
    crashes = Crashes()
    first, other, second = crash(HIS), crash(HERS), crash(HIS)
    crashes.add(first)
    first.explain(LastProcess("out of memory (killed by SIGKILL)", 7))
    assert crashes.in_words(other) == "worker 0: it closed"
    crashes.add(second)
    words = "worker 0: it closed; the time before: out of memory (killed by SIGKILL)"
    assert crashes.in_words(second) == words


def test_job_in_words() -> None:
    assert str(HERS) == "job hers (attempt 2, 0.0 s, 320 bytes)"
    assert str(HIS) == "job his (attempt 1, 64 bytes)"


def test_crashes_keep_the_last_twenty_and_count_the_recent_ones() -> None:
    crashes = Crashes()
    for at in range(KEPT + 5):
        crashes.add(crash(at=at, worker=str(at % 2)))
    assert [kept.at for kept in crashes] == list(range(5, KEPT + 5))
    assert crashes.since("0", 20.0) == 3
    assert crashes.since("1", 24.0) == 0
