"""Transcribes the recordings that a Redis stream names: docs/scaling.md.

Usage: redis_consumer.py redis://HOST:PORT NAME, with a NAME of its own for each consumer.
"""

import contextlib
import sys
import time
from typing import Any

import redis

from asrd import Client, errors

JOBS, DONE, GROUP = "asr:jobs", "asr:done", "asrd"
# Without a sign of life for this time a consumer is dead, and others take its jobs over. More than
# max_wait_seconds, in which a job shows none.
DEAD_MS = 600_000
LATER = (errors.Busy, errors.ShuttingDown, errors.ConnectionLost)


def next_jobs(queue: Any, name: str) -> list[tuple[str, dict[str, str]]]:
    """Returns a job that a dead consumer left, else a new one; none if there is none for 5 s."""
    jobs = queue.xautoclaim(JOBS, GROUP, name, DEAD_MS, count=1)[1]
    new = [] if jobs else queue.xreadgroup(GROUP, name, {JOBS: ">"}, count=1, block=5000)
    return jobs or [job for _, found in new for job in found]


def serve(queue: Any, client: Client, name: str, number: str, job: dict[str, str]) -> None:
    """Acknowledges a job together with its answer, or with its return to the queue's end."""
    stream, entry, pause = DONE, dict(job), 0.0
    try:
        alive = [JOBS, GROUP, name, 0, [number]]
        done = client.transcribe(
            job.get("file", ""), on_progress=lambda _: queue.xclaim(*alive, justid=True)
        )
        entry["text"] = done.text
    except (errors.AsrdError, OSError, ValueError) as error:
        if isinstance(error, LATER) or getattr(error, "phase", None) == "queue":
            stream, pause = JOBS, (getattr(error, "retry_after_ms", None) or 1000) / 1000
        else:
            entry["error"] = str(error)
    with queue.pipeline() as change:
        change.xadd(stream, entry).xack(JOBS, GROUP, number).xdel(JOBS, number).execute()
    time.sleep(pause)


def main(address: str, name: str) -> None:
    # Longer than next_jobs waits for a job.
    queue = redis.Redis.from_url(address, decode_responses=True, socket_timeout=30)
    with contextlib.suppress(redis.ResponseError):  # the group exists
        queue.xgroup_create(JOBS, GROUP, id="0", mkstream=True)
    with Client(busy_timeout=0) as client:
        while True:
            for number, job in next_jobs(queue, name):
                serve(queue, client, name, number, job)


if __name__ == "__main__":
    main(*sys.argv[1:])
