"""The daemon's state as data: for `status`, for `systemctl status`, and Wyoming's `info`."""

import math
import os
from typing import Any

from asrd.front.doors import Door
from asrd.front.front import Front
from asrd.front.reporting import health
from asrd.front.reporting.job_list import job_list
from asrd.front.scheduling.job import Job
from asrd.front.scheduling.workers import Worker, WorkerState
from asrd.front.worker_connection import WorkerConnection
from asrd.version import __version__
from asrd.wire.client_events import StatusRequest
from asrd.wire.peer import Peer

# The name of the one program in `info`.
PROGRAM = "asrd"


def shown_state(worker: Worker) -> str:
    """Returns the scheduler's state, with `busy` for a ready worker that has jobs."""
    if worker.state is WorkerState.READY and worker.jobs:
        return "busy"
    return worker.state.value


def answer(
    asked: StatusRequest, front: Front, peer: Peer, public: bool, now: float
) -> dict[str, Any]:
    """Returns the data of the `status` event that was asked for; `public`: see Door."""
    found = snapshot(front, peer, now)
    if asked.crashes:
        found["crashes"] = [crash.as_data(peer, public) for crash in front.crashes]
    if asked.jobs:
        found["job_list"] = job_list(front.scheduler, peer, now)
    return found


def snapshot(front: Front, peer: Peer, now: float) -> dict[str, Any]:
    """Returns the data of the `status` event, without other users' job ids."""
    scheduler, metrics = front.scheduler, front.metrics
    oldest = scheduler.queue.oldest_arrival()
    return {
        "state": health.state(front, now),
        "problems": health.problems(front, now),
        "version": __version__,
        "uptime_s": round(now - front.started_at, 3),
        "pid": os.getpid(),
        "connections": len(front.clients),
        "connections_max": sum(door.quota.limit for door in front.doors.values()),
        "sockets": [_socket(door) for door in front.doors.values()],
        "queue": {
            "depth": len(scheduler.queue),
            "max": scheduler.settings.queue_max,
            "oldest_wait_ms": 0 if oldest is None else round((now - oldest) * 1000),
        },
        "jobs": metrics.jobs(scheduler.retried, scheduler.given_back - scheduler.retried),
        "ignored_events": metrics.ignored_events,
        "live_steps": metrics.live_steps,
        "audio_seconds": round(metrics.audio_seconds, 3),
        "latency_ms": metrics.latency_ms(),
        "real_time_factor": metrics.real_time_factor(),
        "histograms": metrics.histograms(),
        "workers": [
            _worker(worker, front.connections[worker.name], peer, now)
            for _, worker in sorted(scheduler.workers.items())
        ],
    }


def _socket(door: Door) -> dict[str, Any]:
    quota = door.quota
    return {"name": door.name, "connections": quota.used, "connections_max": quota.limit}


def _worker(worker: Worker, connection: WorkerConnection, peer: Peer, now: float) -> dict[str, Any]:
    info = connection.info
    running = (job for job in worker.jobs.values() if not (job.ended or job.step))
    return {
        "name": worker.name,
        "state": shown_state(worker),
        "reason": worker.reason or info.ended,
        "retired": worker.retired,
        "spare": worker.spare,
        "speakers": worker.skills.speakers,
        "pid": info.pid,
        "model": info.model,
        "device": info.device,
        "compute_type": info.compute_type,
        "cpu_threads": info.cpu_threads or None,
        "cores": info.cores or None,
        "jobs": [_job(job, peer, now) for job in running],
        "jobs_done": info.jobs_done,
        "restarts": info.restarts,
        "failures": {cause.value: count for cause, count in info.failures.items()},
        "load_seconds": info.load_seconds,
        "last_death": info.last_death.summary(peer) if info.last_death is not None else None,
    }


def _job(job: Job, peer: Peer, now: float) -> dict[str, Any]:
    seen = peer.may_see(job.request.owner)
    return {
        "job_id": job.request.job_id if seen else None,
        "age_ms": round((now - job.started_at) * 1000),
        "audio_seconds_done": round(job.done, 3) if seen else None,
        "audio_seconds": round(job.seconds, 3) or None if seen else None,
    }


def status_line(front: Front, now: float, drain_ends: float = math.inf) -> str:
    """Returns `ok · 2/2 workers ready · queue 0/1 · 1234 done · 3 failed …` for systemctl.
    `drain_ends`: the time at which a drain ends, at the latest."""
    scheduler, metrics = front.scheduler, front.metrics
    if scheduler.draining and (jobs := [j for j in scheduler.unfinished() if not j.step]):
        left = max(0.0, drain_ends - now)
        return f"stopping: waits for {len(jobs)} job{'s' * (len(jobs) != 1)}, {left:.0f} s at most"
    workers = scheduler.workers.values()
    ready = sum(w.state is WorkerState.READY for w in workers)
    asleep = sum(w.state is WorkerState.ASLEEP for w in workers)
    crashes = sum(connection.info.restarts for connection in front.connections.values())
    parts = [
        health.state(front, now),
        f"{ready}/{len(workers)} workers ready" + (f" ({asleep} asleep)" if asleep else ""),
        f"queue {len(scheduler.queue)}/{scheduler.settings.queue_max}",
        f"{metrics.done} done",
        f"{sum(metrics.failed.values())} failed",
        f"{crashes} crash{'' if crashes == 1 else 'es'}",
    ]
    return " · ".join(parts + health.problems(front, now))


def info(front: Front) -> dict[str, Any]:
    """Returns the data of Wyoming's `info`: the models that the workers have, or had at last. A
    client may ask only once, perhaps while a worker loads, sleeps or is replaced."""
    attribution = {"name": PROGRAM, "url": ""}
    models = {}
    for name, worker in sorted(front.scheduler.workers.items()):
        info = front.connections[name].info
        if not worker.retired and info.model is not None and info.languages:
            where = f" ({info.device}, {info.compute_type})" if info.device else ""
            models[info.model] = {
                "name": info.model,
                "attribution": attribution,
                "installed": True,
                "description": f"Whisper model {info.model}{where}",
                "version": None,
                "languages": list(info.languages),
            }
    program = {
        "name": PROGRAM,
        "attribution": attribution,
        "installed": True,
        "description": "Faster Whisper in isolated workers",
        "version": __version__,
        "models": list(models.values()),
        "supports_transcript_streaming": front.settings.wyoming_live,
        "requires_external_vad": not front.settings.wyoming_end_of_speech_ms,
        # Whisper was trained on recordings as they are.
        "prefers_auto_gain_enabled": False,
        "prefers_noise_reduction_enabled": False,
    }
    others = ("tts", "handle", "intent", "wake", "mic", "snd")
    return {"asr": [program], **dict.fromkeys(others, ())}
