"""The status snapshot as people read it."""

from typing import Any

import pytest

from asrd.asrctl.table import crash_page, duration, health_line, page, read_snapshot
from asrd.errors import FieldError

SNAPSHOT: dict[str, Any] = {
    "state": "degraded",
    "problems": ["worker 1 is failed: no such model"],
    "version": "0.1.0",
    "uptime_s": 11520.0,
    "pid": 42,
    "queue": {"depth": 1, "max": 4, "oldest_wait_ms": 1500},
    "jobs": {
        "accepted": 20,
        "done": 12,
        "retried": 2,
        "failed": {"bad-audio": 2, "worker-crashed": 1},
        "refused": {"busy": 7},
    },
    "audio_seconds": 15120.0,
    "latency_ms": {
        "wait": {"p50": 1.0, "p95": 12.4, "p99": 300.0},
        "run": {"p50": 310, "p95": 1200, "p99": 125000},
    },
    "real_time_factor": {"p50": 0.0312, "p95": 0.05, "p99": 1.0},
    "workers": [
        {
            "name": "0",
            "state": "busy",
            "reason": None,
            "pid": 100,
            "model": "demo",
            "device": "cpu",
            "compute_type": "int8",
            "job_id": "ab12",
            "job_age_ms": 1200,
            "jobs_done": 12,
            "restarts": 1,
            "load_seconds": 0.31,
            "last_death": "signal 11, running job x",
        },
        {"name": "1", "state": "failed", "reason": "no such model"},
    ],
}

PAGE = """\
asrd 0.1.0 · degraded · up 3 h 12 min · pid 42
  ! worker 1 is failed: no such model

queue  1 of 4 waiting, the oldest for 1.5 s
jobs   20 accepted: 12 done, 3 failed (bad-audio 2, worker-crashed 1), 7 refused (busy 7), 2 retried
audio  4 h 12 min

             p50     p95    p99
wait         1 ms    12 ms  300 ms
run          310 ms  1.2 s  2 min 5 s
run / audio  0.031   0.050  1.000

WORKER  STATE   PID  MODEL  DEVICE  COMPUTE  JOB   AGE    DONE  RESTARTS  LOAD    LAST DEATH
0       busy    100  demo   cpu     int8     ab12  1.2 s  12    1         310 ms  signal 11, running job x
1       failed  -    -      -       -        -     -      0     0         -       -
"""  # noqa: E501


def test_the_page() -> None:
    assert page(read_snapshot(SNAPSHOT)) == PAGE


def test_the_line() -> None:
    assert health_line(read_snapshot(SNAPSHOT)) == (
        "degraded: 1/2 workers ready · queue 1/4 · 12 done · 3 failed · "
        "worker 1 is failed: no such model"
    )


def test_a_snapshot_with_nothing_but_its_state() -> None:
    snapshot = read_snapshot({"state": "unavailable"})
    assert page(snapshot).startswith("asrd ? · unavailable · up 0 ms\n\nqueue  0 of 0 waiting\n")
    assert page(snapshot).endswith("\n\nno workers\n")
    assert health_line(snapshot) == "unavailable: 0/0 workers ready · queue 0/0 · 0 done · 0 failed"


CRASHES = [
    {
        "time": "2026-01-31T12:00:00.123Z",
        "worker": "1",
        "noticed": "it closed the connection without a word",
        "jobs": [],
        "other_jobs": 2,
    },
    {
        "time": "2026-01-31T12:00:01.000Z",
        "worker": "0",
        "pid": 42,
        "model": "demo",
        "exit": "killed by SIGABRT",
        "noticed": "it closed the connection without a word",
        "stderr": "what(): CUDA failed / Fatal Python error: Aborted",
        "jobs": [
            {
                "job_id": "ab12",
                "trace_id": "t-1",
                "uid": 1000,
                "attempt": 2,
                "audio_bytes": 64000,
                "audio_seconds": 2.0,
            },
            {"job_id": "cd34", "attempt": 1, "audio_bytes": 9},
        ],
        "other_jobs": 0,
    },
    {"time": "2026-01-31T12:00:02.000Z", "worker": "0", "pid": 43, "exit": "exited with 1"},
]

CRASH_PAGE = """\
TIME                      WORKER  PID  MODEL  HOW                                      JOB          TRACE  ATTEMPT  AUDIO
2026-01-31T12:00:02.000Z  0       43   -      exited with 1                            -            -      -        -
2026-01-31T12:00:01.000Z  0       42   demo   killed by SIGABRT                        ab12         t-1    2        2.0 s, 64000 bytes
2026-01-31T12:00:01.000Z  0       42   demo   killed by SIGABRT                        cd34         -      1        9 bytes
  what(): CUDA failed / Fatal Python error: Aborted
2026-01-31T12:00:00.123Z  1       -    -      it closed the connection without a word  (another's)  -      -        -
"""  # noqa: E501


def test_the_crashes_the_last_one_first() -> None:
    assert crash_page(read_snapshot({"state": "ok", "crashes": CRASHES})) == CRASH_PAGE


def test_no_crashes() -> None:
    shown = crash_page(read_snapshot({"state": "ok"}))
    assert shown == "no worker has died since asrd was started\n"


def test_nothing_in_a_crash_commands_the_terminal() -> None:
    risky = "\x1b[2J\n"
    crash: dict[str, Any] = dict.fromkeys(("time", "worker", "model", "exit", "stderr"), risky)
    crash |= {"jobs": [{"job_id": risky, "trace_id": risky}]}
    shown = crash_page(read_snapshot({"state": "ok", "crashes": [crash]}))
    assert "\x1b" not in shown
    assert shown.count("\n") == 3


def test_another_users_job_is_shown_without_its_name() -> None:
    worker = {**SNAPSHOT["workers"][0], "job_id": None}
    shown = page(read_snapshot({"state": "ok", "workers": [worker]}))
    assert "(another's)  1.2 s" in shown


def test_a_spare_is_told_apart() -> None:
    worker = {"name": "1", "state": "ready", "spare": True}
    shown = page(read_snapshot({"state": "ok", "workers": [worker]}))
    assert shown.splitlines()[-1].split()[:3] == ["1", "ready", "(spare)"]


def test_a_reason_is_told_even_if_it_is_no_problem_yet() -> None:
    worker = {"name": "1", "state": "asleep", "reason": "idle for an hour"}
    shown = page(read_snapshot({"state": "ok", "workers": [worker]}))
    assert "  ! worker 1: idle for an hour\n" in shown


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({}, "status.state: is missing"),
        ({"state": 5}, "status.state: must be a string"),
        (
            {"state": "ok", "workers": [{"pid": "x"}]},
            r"status.workers\[0\].pid: must be an integer",
        ),
        ({"state": "ok", "queue": []}, "status.queue: must be an object"),
        (
            {"state": "ok", "latency_ms": {"wait": {"p50": float("nan")}}},
            r"status.latency_ms.wait.p50: must be",
        ),
    ],
)
def test_what_the_daemon_gets_wrong_is_named(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(FieldError, match=problem):
        read_snapshot(wrong)


def test_nothing_in_it_commands_the_terminal() -> None:
    risky = "\x1b[2J\n"
    snapshot = read_snapshot(
        {
            "state": risky,
            "version": risky,
            "problems": [risky],
            "jobs": {"failed": {risky: risky}},
            "workers": [{"name": risky, "reason": risky, "job_id": risky, "last_death": risky}],
        }
    )
    for shown in (page(snapshot), health_line(snapshot)):
        assert "\x1b" not in shown
    harmless = read_snapshot({**SNAPSHOT, "workers": SNAPSHOT["workers"][:1]})
    assert page(snapshot).count("\n") == page(harmless).count("\n")


def test_columns_count_cells() -> None:
    names = ["\u4f1a\u8b70", "demo"]
    workers = [{"name": name, "state": "ready", "model": name} for name in names]
    head, *rows = page(read_snapshot({"state": "ok", "workers": workers})).splitlines()[-3:]
    assert head.startswith("WORKER  STATE  PID  MODEL  DEVICE")
    assert rows[0].startswith("\u4f1a\u8b70    ready  -    \u4f1a\u8b70   -")
    assert rows[1].startswith("demo    ready  -    demo   -")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
