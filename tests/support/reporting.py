"""A front without connections: as much of one as the reports about it read."""

from types import SimpleNamespace
from typing import Any

from asrd.front.doors import doors
from asrd.front.reporting import snapshot
from asrd.front.reporting.crashes import Crash, Crashes, JobRef
from asrd.front.reporting.metrics import Metrics
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.scheduler import Scheduler
from asrd.front.worker_info import WorkerInfo
from asrd.quota import Quota
from asrd.settings import FrontSettings
from asrd.wire.peer import Peer

ALICE, BOB, CAROL, ROOT = 1000, 1001, 1002, 0


def front(*ready: str, **limits: Any) -> Any:
    """A front with workers of those names, ready."""
    settings = FrontSettings(**limits)
    made = SimpleNamespace(
        settings=settings,
        scheduler=Scheduler(settings),
        metrics=Metrics(),
        crashes=Crashes(),
        doors=doors(settings, Quota(1, 1, "bytes")),
        connections={},
        started_at=100.0,
        clients={1, 2, 3},
    )
    for name in ready:
        add(made, name)
        made.scheduler.worker_ready(name, "tiny", 100.0)
    return made


def add(made: Any, name: str) -> None:
    made.scheduler.worker_added(name, 100.0)
    info = WorkerInfo(100, "tiny", ("en", "de"), "cpu", "int8", cpu_threads=2, cores=4)
    info.load_seconds, info.loads = 0.25, True
    made.connections[name] = SimpleNamespace(info=info)


def submit(made: Any, job_id: str, uid: int = ALICE, at: float = 101.0) -> None:
    job = Job(uid, at, request=SimpleNamespace(job_id=job_id, owner=peer(uid)))
    made.scheduler.submit(job, at)


def peer(uid: int) -> Peer:
    return Peer(pid=1, uid=uid, gid=uid)


def crash(how: str, **jobs: int) -> Crash:
    refs = tuple(JobRef(job_id, peer(uid)) for job_id, uid in jobs.items())
    return Crash("0", 0.0, 100.0, how, refs)


def worker(made: Any, uid: int, name: str = "0") -> dict[str, Any]:
    rows = snapshot.snapshot(made, peer(uid), now=103.5)["workers"]
    found: dict[str, Any] = next(row for row in rows if row["name"] == name)
    return found
