"""The status snapshot as text."""

from typing import Any

import pytest

from asrd.asrctl.table import crash_page, duration, health_line, page
from asrd.snapshot import Snapshot, read_snapshot
from tests.support.status import SNAPSHOT

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

WORKER  STATE   PID  MODEL  DEVICE  COMPUTE  THREADS  JOBS                           AGE    DONE  RESTARTS  LOAD    LAST DEATH
0       busy    100  demo   cpu     int8     2        ab12 25%, cd34, (1 of others)  1.2 s  12    1         310 ms  signal 11, running job x
1       failed  -    -      -       -        -        -                              -      0     0         -       -
"""  # noqa: E501

CRASHES = [
    {
        "time": "2026-01-31T12:00:00.123Z",
        "worker": "1",
        "noticed": "its connection ended without notice",
        "jobs": [],
        "other_jobs": 2,
    },
    {
        "time": "2026-01-31T12:00:01.000Z",
        "worker": "0",
        "pid": 42,
        "model": "demo",
        "exit": "killed by SIGABRT",
        "noticed": "it made no progress for 150 s",
        "stderr": "what(): CUDA failed / Fatal Python error: Aborted",
        "jobs": [
            {
                "job_id": "ab12",
                "trace_id": "t-1",
                "uid": 1000,
                "attempt": 2,
                "in_turn": True,
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
TIME                      WORKER  PID  MODEL  HOW                                               JOB          IN TURN  TRACE  ATTEMPT  AUDIO
2026-01-31T12:00:02.000Z  0       43   -      exited with 1                                     -            -        -      -        -
2026-01-31T12:00:01.000Z  0       42   demo   killed by SIGABRT, it made no progress for 150 s  ab12         yes      t-1    2        2.0 s, 64000 bytes
2026-01-31T12:00:01.000Z  0       42   demo   killed by SIGABRT, it made no progress for 150 s  cd34         no       -      1        9 bytes
  what(): CUDA failed / Fatal Python error: Aborted
2026-01-31T12:00:00.123Z  1       -    -      its connection ended without notice               (another's)  -        -      -        -
"""  # noqa: E501


def with_workers(*workers: dict[str, Any]) -> Snapshot:
    return read_snapshot({"state": "ok", "workers": workers})


def test_page_shows_every_figure() -> None:
    assert page(read_snapshot(SNAPSHOT)) == PAGE


def test_health_line_sums_up_the_snapshot() -> None:
    assert health_line(read_snapshot(SNAPSHOT)) == (
        "degraded: 1/2 workers ready · queue 1/4 · 12 done · 3 failed · "
        "worker 1 is failed: no such model"
    )


def test_page_of_a_snapshot_with_nothing_but_its_state() -> None:
    shown = page(read_snapshot({"state": "unavailable"}))
    assert shown.startswith("asrd ? · unavailable · up 0 ms\n\nqueue  0 of 0 waiting\n")
    assert shown.endswith("\n\nno workers\n")


def test_crash_page_begins_with_the_last_crash() -> None:
    assert crash_page(read_snapshot({"state": "ok", "crashes": CRASHES})) == CRASH_PAGE


def test_crash_page_without_a_list_says_why() -> None:
    refusing = {"state": "unavailable", "problems": ["the settings are wrong: asrd.toml:4: x"]}
    expected = "the crashes are not known: the settings are wrong: asrd.toml:4: x\n"
    assert crash_page(read_snapshot(refusing)) == expected
    assert crash_page(read_snapshot({"state": "ok", "crashes": []})).startswith("no crash of a")


def test_page_names_no_job_of_another_user() -> None:
    shown = page(with_workers({"state": "busy", "jobs": [{"age_ms": 1200}, {"age_ms": 300}]}))
    assert "  (2 of others)  1.2 s  " in shown


def test_page_marks_a_spare_worker() -> None:
    shown = page(with_workers({"name": "1", "state": "ready", "spare": True}))
    assert shown.splitlines()[-1].split()[:3] == ["1", "ready", "(spare)"]


def test_page_shows_a_reason_that_is_no_problem_yet() -> None:
    shown = page(with_workers({"name": "1", "state": "asleep", "reason": "idle for an hour"}))
    assert "  ! worker 1: idle for an hour\n" in shown


def test_text_of_the_daemon_commands_no_terminal() -> None:
    risky = "\x1b[2J\n"
    crash: dict[str, Any] = dict.fromkeys(("time", "worker", "model", "exit", "stderr"), risky)
    crash |= {"jobs": [{"job_id": risky, "trace_id": risky}]}
    snapshot = read_snapshot(
        {
            "state": risky,
            "version": risky,
            "problems": [risky],
            "jobs": {"failed": {risky: 1}},
            "workers": [
                {"name": risky, "reason": risky, "jobs": [{"job_id": risky}], "last_death": risky}
            ],
            "crashes": [crash],
        }
    )
    for shown, lines in (
        (page(snapshot), 14),
        (health_line(snapshot), 0),
        (crash_page(snapshot), 3),
    ):
        assert "\x1b" not in shown
        assert shown.count("\n") == lines


def test_columns_are_aligned_by_cells() -> None:
    names = ["\u4f1a\u8b70", "demo"]
    workers = [{"name": name, "state": "ready", "model": name} for name in names]
    head, *rows = page(with_workers(*workers)).splitlines()[-3:]
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
        (3661, "1 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration_has_at_most_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
