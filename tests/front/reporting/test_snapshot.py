"""The status snapshot: its data, and what it hides from other users."""

import os

import orjson
import pytest
from wyoming.event import Event
from wyoming.info import Info

from asrd.errors import Cause
from asrd.front.reporting import snapshot
from asrd.front.scheduling.workers import WorkerState
from asrd.snapshot import ListedJob, Snapshot
from asrd.version import __version__
from asrd.wire.client_events import StatusRequest
from asrd.wire.fields import parse
from tests.support.reporting import ALICE, BOB, ROOT, crash, front, peer, submit, worker


def each(value: float) -> dict[str, float]:
    return dict.fromkeys(("p50", "p95", "p99"), value)


def test_snapshot_of_a_busy_daemon() -> None:
    made = front("0", queue_max=5, connections_max=9)
    submit(made, "running", at=101.0)
    submit(made, "waiting", at=102.5)
    submit(made, "later", at=103.0)
    made.metrics.job_done(wait=0.5, run=1.0, audio_seconds=10.0, now=102.0)
    made.scheduler.retried, made.scheduler.given_back = 2, 3
    made.connections["0"].info.failures[Cause.SIGNAL] += 2
    made.doors["asrd"].quota.add(ALICE, 1)
    assert snapshot.snapshot(made, peer(ALICE), now=103.5) == {
        "state": "ok",
        "problems": [],
        "version": __version__,
        "uptime_s": 3.5,
        "pid": os.getpid(),
        "connections": 3,
        "connections_max": 9 + 2 * 256,
        "sockets": [
            {"name": "asrd", "connections": 1, "connections_max": 9},
            {"name": "status", "connections": 0, "connections_max": 256},
            {"name": "wyoming", "connections": 0, "connections_max": 256},
        ],
        "queue": {"depth": 2, "max": 5, "oldest_wait_ms": 1000},
        "jobs": {
            "accepted": 0,
            "done": 1,
            "retried": 2,
            "suspended": 1,
            "resumed": 0,
            "failed": {},
            "refused": {},
            "daemon_failures": 0,
        },
        "ignored_events": 0,
        "live_steps": 0,
        "audio_seconds": 10.0,
        "latency_ms": {"wait": each(500.0), "run": each(1000.0)},
        "real_time_factor": each(0.1),
        "histograms": made.metrics.histograms(),
        "workers": [
            {
                "name": "0",
                "state": "busy",
                "reason": None,
                "retired": False,
                "spare": False,
                "speakers": False,
                "pid": 100,
                "model": "tiny",
                "device": "cpu",
                "compute_type": "int8",
                "cpu_threads": 2,
                "cores": 4,
                "jobs": [
                    {
                        "job_id": "running",
                        "age_ms": 2500,
                        "audio_seconds_done": 0.0,
                        "audio_seconds": None,
                    }
                ],
                "jobs_done": 0,
                "restarts": 0,
                "failures": {"signal": 2},
                "load_seconds": 0.25,
                "last_death": None,
            }
        ],
    }


def test_snapshot_can_be_sent_and_read_by_asrctl() -> None:
    made = front("1", "0")
    made.scheduler.worker_ready("0", "tiny", 100.0, slots=2)
    made.scheduler.worker_left("1", True, 100.0)
    submit(made, "running", ALICE)
    submit(made, "secret", BOB)
    made.connections["0"].info.last_death = crash("killed by SIGSEGV", mine=ALICE)
    sent = orjson.loads(orjson.dumps(snapshot.snapshot(made, peer(ALICE), now=103.5)))
    read = parse(Snapshot, sent)
    assert [row.name for row in read.workers] == ["0", "1"]
    assert [job.job_id for job in read.workers[0].jobs] == ["running", None]
    assert read.workers[0].last_death == "killed by SIGSEGV, running job mine"


@pytest.mark.parametrize("uid", [ALICE, BOB, ROOT])
def test_running_job_is_named_to_its_owner_and_root_alone(uid: int) -> None:
    """Nor do others see how long the recording is."""
    made = front("0")
    made.scheduler.worker_ready("0", "tiny", 100.0, slots=2)
    submit(made, "hers", ALICE)
    submit(made, "his", BOB, at=102.0)
    for job in made.scheduler.running():
        made.scheduler.job_state("0", job.key, 1.0, 10.0, 25.0, 103.0)
    assert worker(made, uid)["jobs"] == [
        {
            "job_id": job_id if uid in (owner, ROOT) else None,
            "age_ms": age,
            "audio_seconds_done": 10.0 if uid in (owner, ROOT) else None,
            "audio_seconds": 25.0 if uid in (owner, ROOT) else None,
        }
        for job_id, owner, age in (("hers", ALICE, 2500), ("his", BOB, 1500))
    ]


def test_snapshot_names_no_job_of_another_user() -> None:
    made = front("0", queue_max=9)
    for number in range(4):
        submit(made, f"secret{number}", ALICE)
    made.connections["0"].info.last_death = crash("it broke", secret9=ALICE)
    assert "secret" in str(snapshot.snapshot(made, peer(ALICE), now=103.5))
    assert "secret" not in str(snapshot.snapshot(made, peer(BOB), now=103.5))


def test_cancelled_job_is_no_longer_shown() -> None:
    made = front("0")
    submit(made, "gone")
    (job,) = made.scheduler.running()
    made.scheduler.end(job, "cancelled", 102.0)
    assert worker(made, ALICE)["jobs"] == []
    assert worker(made, ALICE)["state"] == "busy"


def test_status_line() -> None:
    made = front("0", "1", queue_max=4)
    assert snapshot.status_line(made, 104.0) == (
        "ok · 2/2 workers ready · queue 0/4 · 0 done · 0 failed · 0 crashes"
    )
    made.metrics.done = 1234
    made.metrics.failed["bad-audio"] = 2
    made.metrics.failed["cancelled"] = 1
    made.connections["1"].info.restarts = 1
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


def test_status_line_counts_sleeping_workers() -> None:
    made = front("0", "1")
    made.scheduler.worker_left("1", True, 103.0)
    line = snapshot.status_line(made, 104.0)
    assert line.startswith("ok · 1/2 workers ready (1 asleep) · queue 0/64")


def test_info_names_each_model_once() -> None:
    made = front("0", "1", "2")
    made.connections["2"].info.model = "large"
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
    made.connections["1"].info.languages = ()
    (program,) = snapshot.info(made)["asr"]
    assert [model["name"] for model in program["models"]] == ["tiny"]


def test_info_is_valid_wyoming() -> None:
    made = front("0")
    info = Info.from_event(Event("info", snapshot.info(made)))
    assert info.asr[0].models[0].languages == ["en", "de"]


@pytest.mark.parametrize("uid", [ALICE, BOB, ROOT])
def test_listed_jobs_are_those_that_the_peer_may_see(uid: int) -> None:
    made = front("0")
    submit(made, "runs", ALICE)
    for job_id in ("waits", "waits, too"):
        submit(made, job_id, BOB, at=102.0)
    (job,) = made.scheduler.running()
    made.scheduler.job_state("0", job.key, 2.0, 10.0, 25.0, 103.0)
    asked = StatusRequest(jobs=True)
    found = orjson.loads(orjson.dumps(snapshot.answer(asked, made, peer(uid), False, 103.5)))
    mine = {ALICE: ["runs"], BOB: ["waits", "waits, too"], ROOT: ["runs", "waits", "waits, too"]}
    assert [each["job_id"] for each in found["job_list"]] == mine[uid]
    listed = parse(Snapshot, found).job_list
    runs = ListedJob("runs", "user 1000", "0", 2500, 2000, 1, 10.0, 25.0)
    waits = ListedJob("waits", "user 1001", None, 1500, 0, 0, 0.0, None)
    assert [each for each in listed if each.job_id in ("runs", "waits")] == [
        each for each in (runs, waits) if each.job_id in mine[uid]
    ]


def test_status_has_jobs_and_crashes_only_if_asked() -> None:
    found = snapshot.answer(StatusRequest(), front("0"), peer(ROOT), False, 103.5)
    assert found.keys() & {"job_list", "crashes"} == set()
