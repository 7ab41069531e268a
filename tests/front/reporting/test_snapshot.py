"""The snapshot: what it promises, what it hides, and when it says that all is well."""

import os
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from wyoming.event import Event
from wyoming.info import Info

from asrd.asrctl.table import Snapshot
from asrd.front.reporting import snapshot
from asrd.front.reporting.crashes import Crash, Crashes, JobRef
from asrd.front.reporting.metrics import Metrics
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.scheduler import Scheduler
from asrd.front.scheduling.workers import WorkerState
from asrd.front.worker_connection import WorkerInfo
from asrd.settings import FrontSettings
from asrd.version import __version__
from asrd.wire.fields import parse
from asrd.wire.peer import Peer

ALICE, BOB, ROOT = 1000, 1001, 0


def front(*ready: str, **limits: Any) -> Any:
    """As much of a front as a snapshot looks at, with workers of those names ready."""
    made = SimpleNamespace(
        scheduler=Scheduler(FrontSettings(**limits)),
        metrics=Metrics(),
        crashes=Crashes(),
        links={},
        started_at=100.0,
        connections=3,
    )
    for name in ready:
        add(made, name)
        made.scheduler.worker_ready(name, "tiny", 100.0)
    return made


def add(made: Any, name: str) -> None:
    made.scheduler.worker_added(name, 100.0)
    info = WorkerInfo(100, "tiny", ("en", "de"), "cpu", "int8", load_seconds=0.25, loads=True)
    made.links[name] = SimpleNamespace(info=info)


def submit(made: Any, job_id: str, uid: int = ALICE, at: float = 101.0) -> None:
    job = Job(uid, at, request=SimpleNamespace(job_id=job_id, owner=peer(uid)))
    made.scheduler.submit(job, at)


def peer(uid: int) -> Peer:
    return Peer(pid=1, uid=uid, gid=uid)


def death(how: str, **jobs: int) -> Crash:
    return Crash(
        "0", 0.0, 100.0, how, tuple(JobRef(job_id, peer(uid)) for job_id, uid in jobs.items())
    )


def worker(made: Any, uid: int, name: str = "0") -> dict[str, Any]:
    rows = snapshot.snapshot(made, peer(uid), now=103.5)["workers"]
    found: dict[str, Any] = next(row for row in rows if row["name"] == name)
    return found


# --- what it says ---------------------------------------------------------------------------------


def test_the_snapshot_of_a_busy_daemon() -> None:
    made = front("0", queue_max=5)
    submit(made, "running", at=101.0)
    submit(made, "waiting", at=102.5)
    submit(made, "later", at=103.0)
    nothing = {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    assert snapshot.snapshot(made, peer(ALICE), now=103.5) == {
        "state": "ok",
        "problems": [],
        "version": __version__,
        "uptime_s": 3.5,
        "pid": os.getpid(),
        "connections": 3,
        "queue": {"depth": 2, "max": 5, "oldest_wait_ms": 1000},
        "jobs": {
            "accepted": 0,
            "done": 0,
            "retried": 0,
            "failed": {},
            "refused": {},
        },
        "ignored_events": 0,
        "audio_seconds": 0.0,
        "latency_ms": {"wait": nothing, "run": nothing},
        "real_time_factor": nothing,
        "workers": [
            {
                "name": "0",
                "state": "busy",
                "reason": None,
                "retired": False,
                "spare": False,
                "pid": 100,
                "model": "tiny",
                "device": "cpu",
                "compute_type": "int8",
                "job_id": "running",
                "job_age_ms": 2500,
                "jobs_done": 0,
                "restarts": 0,
                "load_seconds": 0.25,
                "last_death": None,
            }
        ],
    }


def test_a_snapshot_can_be_sent_and_is_what_the_table_reads() -> None:
    made = front("1", "0")
    made.links["0"].info.last_death = death("killed by SIGSEGV", mine=ALICE)
    sent = orjson.loads(orjson.dumps(snapshot.snapshot(made, peer(ALICE), now=103.5)))
    read = parse(Snapshot, sent)
    assert [row.name for row in read.workers] == ["0", "1"]
    assert read.workers[0].last_death == "killed by SIGSEGV, running job mine"


def test_what_was_counted_is_in_the_snapshot() -> None:
    made = front("0")
    made.metrics.accepted = 4
    made.metrics.failed["bad-audio"] = 1
    made.metrics.refused["busy"] = 7
    made.metrics.job_done(wait=0.5, run=1.0, audio_seconds=10.0, now=102.0)
    made.scheduler.retried = 2
    told = snapshot.snapshot(made, peer(ALICE), now=103.5)
    assert told["jobs"] == {
        "accepted": 4,
        "done": 1,
        "retried": 2,
        "failed": {"bad-audio": 1},
        "refused": {"busy": 7},
    }
    assert told["audio_seconds"] == 10.0
    assert told["latency_ms"]["wait"]["p50"] == 500.0
    assert told["real_time_factor"]["p99"] == 0.1


# --- what it hides --------------------------------------------------------------------------------


@pytest.mark.parametrize(("uid", "shown"), [(ALICE, "hers"), (BOB, None), (ROOT, "hers")])
def test_a_running_job_is_named_to_its_owner_and_root_alone(uid: int, shown: str | None) -> None:
    made = front("0")
    submit(made, "hers", ALICE)
    assert worker(made, uid)["job_id"] == shown
    assert worker(made, uid)["job_age_ms"] == 2500


@pytest.mark.parametrize(
    ("uid", "told"),
    [
        (ALICE, "it broke, running job hers, 1 of others"),
        (BOB, "it broke, running job his, 1 of others"),
        (ROOT, "it broke, running job hers, job his"),
        (1002, "it broke, running 2 of others"),
    ],
)
def test_the_jobs_of_a_death_are_named_to_their_owners_and_root_alone(uid: int, told: str) -> None:
    made = front("0")
    made.links["0"].info.last_death = death("it broke", hers=ALICE, his=BOB)
    assert worker(made, uid)["last_death"] == told


def test_the_death_of_an_idle_worker_is_told_to_all() -> None:
    made = front("0")
    made.links["0"].info.last_death = death("it broke")
    assert worker(made, BOB)["last_death"] == "it broke, idle"


def test_nothing_of_another_users_jobs_is_anywhere_in_the_snapshot() -> None:
    made = front("0", queue_max=9)
    for number in range(4):
        submit(made, f"secret{number}", ALICE)
    made.links["0"].info.last_death = death("it broke", secret9=ALICE)
    assert "secret" in str(snapshot.snapshot(made, peer(ALICE), now=103.5))
    assert "secret" not in str(snapshot.snapshot(made, peer(BOB), now=103.5))


def test_a_job_that_was_given_up_is_no_longer_shown() -> None:
    made = front("0")
    submit(made, "gone")
    (job,) = made.scheduler.running()
    made.scheduler.end(job, "cancelled", 102.0)
    assert worker(made, ALICE)["job_id"] is None
    assert worker(made, ALICE)["job_age_ms"] == 0
    assert worker(made, ALICE)["state"] == "busy"


# --- the line and Wyoming's info ------------------------------------------------------------------


def test_the_line_that_systemctl_shows() -> None:
    made = front("0", "1", queue_max=4)
    assert snapshot.status_line(made, 104.0) == (
        "ok · 2/2 workers ready · queue 0/4 · 0 done · 0 failed · 0 crashes"
    )
    made.metrics.done = 1234
    made.metrics.failed["bad-audio"] = 2
    made.metrics.failed["cancelled"] = 1
    made.links["1"].info.restarts = 1
    for number in range(3):
        submit(made, f"job{number}")
    made.scheduler.worker_failed("1", WorkerState.FAILED, "no such model", 103.0)
    made.scheduler.worker_left("0", True, 103.0)
    made.scheduler.worker_ready("1", "tiny", 104.0)
    made.scheduler.worker_failed("1", WorkerState.FAILED, "no such model", 104.0)
    assert snapshot.status_line(made, 104.0) == (
        "unavailable · 0/2 workers ready · queue 3/4 · 1234 done · 3 failed · 1 crash"
        " · worker 0 is starting · worker 1 is failed: no such model"
    )


def test_the_line_counts_sleepers() -> None:
    made = front("0", "1")
    made.scheduler.worker_left("1", True, 103.0)
    line = snapshot.status_line(made, 104.0)
    assert line.startswith("ok · 1/2 workers ready (1 asleep) · queue 0/1")


def test_info_names_the_models_that_there_are_or_were_once_each() -> None:
    made = front("0", "1", "2")
    made.links["2"].info.model = "large"
    (program,) = snapshot.info(made)["asr"]
    assert (program["name"], program["version"], program["installed"]) == (
        "asrd",
        __version__,
        True,
    )
    models = {model["name"]: model for model in program["models"]}
    assert models.keys() == {"tiny", "large"}
    assert models["tiny"]["languages"] == ["en", "de"]
    # A client may ask only once, and just then.
    made.scheduler.worker_lost("2", "it died", 103.0)
    made.scheduler.worker_left("1", True, 103.0)
    made.scheduler.worker_failed("0", WorkerState.FAILED, "no memory", 103.0)
    assert snapshot.info(made)["asr"] == [program]
    made.scheduler.worker_retired("2", 104.0)
    made.links["1"].info.languages = ()
    (program,) = snapshot.info(made)["asr"]
    assert [model["name"] for model in program["models"]] == ["tiny"]


def test_info_is_worth_waiting_for_while_a_worker_may_tell_what_it_has() -> None:
    made = front("0", "1")
    assert snapshot.unknown_until(made) < 0
    for name, at in (("0", 101.0), ("1", 102.0)):
        made.links[name].info.found_at, made.links[name].info.languages = at, ()
    assert snapshot.unknown_until(made) == 107.0
    made.scheduler.worker_failed("1", WorkerState.FAILED, "no memory", 103.0)
    assert snapshot.unknown_until(made) == 106.0
    made.links["0"].info.languages = ("en",)
    assert snapshot.unknown_until(made) < 0


def test_info_is_wyomings() -> None:
    made = front("0")
    info = Info.from_event(Event("info", snapshot.info(made)))
    assert info.asr[0].models[0].languages == ["en", "de"]
