"""The facts about a worker's process that `status` and the health check show."""

from collections import Counter
from dataclasses import dataclass, field

from asrd.errors import Cause
from asrd.front.reporting.crashes import Crash


@dataclass(slots=True)
class WorkerInfo:
    """Facts about the process behind the socket, for `status`. `model` and `languages` outlive the
    process, because `info` needs them.

    `failures`: the ends of its processes by cause, each as soon as its cause is known. `loads`: the
    last attempt to load the model succeeded. `alive_seconds`: the interval between its
    signs of life. `ended`: why the process before ended itself, until the next one is ready. Times
    of anyio's clock: `found_at`, when its socket was found; `expected_at`, since when a process
    should be there; `heard_at`, when its last event came.
    """

    pid: int | None = None
    model: str | None = None
    languages: tuple[str, ...] = ()
    device: str | None = None
    compute_type: str | None = None
    cpu_threads: int = 0
    cores: int = 0
    load_seconds: float = 0.0
    jobs_done: int = 0
    restarts: int = 0
    failures: Counter[Cause] = field(default_factory=Counter)
    last_death: Crash | None = None
    ended: str | None = None
    loads: bool = False
    expected_at: float | None = None
    heard_at: float = 0.0
    found_at: float | None = None
    alive_seconds: float | None = None
    stalled_seconds: float = 0.0

    def forget_model(self) -> None:
        """Drops what is known of the loaded model: the process with it is gone, and the next one
        may have another."""
        self.device = self.compute_type = None
        self.load_seconds = 0.0
