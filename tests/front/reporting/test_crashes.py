"""What is kept of a worker's death, and who is told what of it."""

import pytest

from asrd.front.reporting.crashes import KEPT, Crash, Crashes, JobRef, rfc3339
from asrd.wire.peer import Peer
from asrd.wire.records import LastProcess

ALICE, BOB, ROOT = (Peer(1, uid, uid) for uid in (1000, 1001, 0))


def crash(*jobs: JobRef, pid: int | None = 7, at: float = 50.0, worker: str = "0") -> Crash:
    return Crash(worker, 1_000_000_000.0625, at, "it closed", jobs, pid, "tiny")


HERS = JobRef("hers", ALICE, audio_bytes=320, audio_seconds=0.01, attempt=2, trace_id="t1")
HIS = JobRef("his", BOB, audio_bytes=64)


def test_all_of_it_as_root_sees_it() -> None:
    made = crash(HERS)
    made.explain(LastProcess("killed by SIGSEGV", 7, "the end\x1b[2J"))
    assert made.as_data(ROOT, outsider=False) == {
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
                "trace_id": "t1",
                "uid": 1000,
                "attempt": 2,
                "audio_bytes": 320,
                "audio_seconds": 0.01,
            }
        ],
        "other_jobs": 0,
    }
    assert made.told_to(ROOT) == "killed by SIGSEGV, it closed, running job hers"


@pytest.mark.parametrize(
    ("peer", "outsider", "jobs", "others", "stderr"),
    [
        (ROOT, True, ["hers", "his"], 0, "a path"),
        (ALICE, False, ["hers"], 1, "a path"),
        (ALICE, True, ["hers"], 1, None),
        (BOB, False, ["his"], 1, "a path"),
        (Peer(1, 1002, 1002), True, [], 2, None),
    ],
)
def test_who_sees_what(
    peer: Peer, outsider: bool, jobs: list[str], others: int, stderr: str | None
) -> None:
    made = crash(HERS, HIS)
    made.explain(LastProcess("exited with 1", 7, "a path"))
    told = made.as_data(peer, outsider)
    assert [job["job_id"] for job in told["jobs"]] == jobs
    assert (told["other_jobs"], told["stderr"]) == (others, stderr)
    assert ("t1" in str(told)) == ("hers" in jobs)


@pytest.mark.parametrize(
    ("last", "same"),
    [
        (LastProcess("killed by SIGSEGV", 7), True),
        (LastProcess("killed by SIGSEGV"), True),
        (LastProcess(None, 7, "what(): bad"), True),
        # Another died meanwhile, of which nobody heard.
        (LastProcess("killed by SIGSEGV", 8), False),
        (LastProcess(None, 7), False),
        (LastProcess(), False),
    ],
)
def test_what_the_next_process_tells_is_of_the_death_with_its_pid(
    last: LastProcess, same: bool
) -> None:
    assert crash().is_of(last) is same


def test_a_job_in_words() -> None:
    assert str(HERS) == "job hers (attempt 2, 0.0 s, 320 bytes)"
    assert str(HIS) == "job his (attempt 1, 64 bytes)"


def test_the_last_twenty_are_kept() -> None:
    crashes = Crashes()
    for number in range(KEPT + 5):
        crashes.add(crash(pid=number))
    assert [kept.pid for kept in crashes] == list(range(5, KEPT + 5))


def test_counting_the_recent_ones_of_a_worker() -> None:
    crashes = Crashes()
    for at, worker in ((10.0, "0"), (20.0, "1"), (30.0, "0"), (40.0, "0")):
        crashes.add(crash(at=at, worker=worker))
    assert crashes.since("0", 30.0) == 2
    assert crashes.since("1", 30.0) == 0


def test_time_as_rfc_3339_has_it() -> None:
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000Z"
