"""The settings of the main campaign's daemon: short times, so that all of them pass."""

from dataclasses import dataclass

from tests.soak import clips
from tests.soak.oracle import Limits


@dataclass(frozen=True)
class Patience:
    """Of the manager; seconds. `start` is for a process that is stopped while it starts, `abort`
    what follows a watchdog's SIGABRT, `stop` what follows SIGTERM."""

    watchdog: int = 5
    start: int = 12
    abort: int = 2
    stop: int = 45


PATIENCE = Patience()
LIMITS = Limits(wait=20, run=30, slow_death=PATIENCE.start + 4, frame=5)


def config(model: str, queue_max: int, queue_max_per_user: int = 0) -> str:
    return f"""
[front]
queue_max = {queue_max}
queue_max_per_user = {queue_max_per_user}
max_wait_seconds = {LIMITS.wait}
max_run_seconds = {LIMITS.run}
frame_timeout_seconds = {LIMITS.frame}
output_max_bytes = 1048576
[worker]
model = '{model}'
check_model = false
cpu_threads = 1
beam_size = {clips.BEAM_SIZE}
stall_seconds = 5
cancel_grace_seconds = 1
"""
