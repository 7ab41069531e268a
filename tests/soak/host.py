"""The place where a campaign's daemon runs, its settings, and the faults that are possible there.
The crowd, the ledger and the judge are the same under `asrd run` and under systemd."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.soak import clips
from tests.soak.killer import Act
from tests.soak.oracle import Limits
from tests.soak.resources import Holding

# The manager's time limits in seconds, short enough that all of them pass in a campaign: the
# watchdog's, to start, to dump core after the watchdog's SIGABRT, to stop after SIGTERM.
WATCHDOG, START, ABORT, STOP = 5, 12, 2, 45
# START bounds the end of a process that is stopped while it starts.
LIMITS = Limits(wait=20, run=30, slow_death=START + 4, frame=5)


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


class Host(ABC):
    """A context manager that runs the daemon; its workers are ready when the block begins."""

    title: str
    # The clients' socket, and the log of the daemon's processes and their manager.
    socket: str
    log: Path
    workers: tuple[str, ...] = ("0", "1")
    # The clients' users, and one with few jobs; none if all are the campaign's own user.
    users: tuple[int, ...] = ()
    quiet_user: int | None = None
    # The faults that only this manager knows, with their weights; `front_acts` end the front.
    acts: Mapping[Act, int]
    front_acts: Mapping[Act, int]

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """The processes that live: `front`, `worker 0`, …; empty if nothing answers just now."""

    @abstractmethod
    def helpers(self) -> dict[str, int]:
        """The other processes that must not grow, by name."""

    @abstractmethod
    def signal(self, pid: int, number: signal.Signals) -> None:
        """Sends a signal; does nothing if the process has ended."""

    @abstractmethod
    def holding(self, pid: int) -> Holding:
        """Raises OSError or ValueError if the process has ended."""

    @abstractmethod
    def processes(self) -> int:
        """The number of all fronts and workers, wanted or not."""

    @abstractmethod
    def files(self) -> set[str]:
        """All files in the places where the daemon may write."""

    @abstractmethod
    def settings(self, worker: str) -> Path:
        """The settings file of one worker."""

    @abstractmethod
    def full_disk(self) -> AbstractContextManager[None]:
        """No byte can be written during the block, as far as this host can do it: neither audio
        nor log."""

    @abstractmethod
    def __enter__(self) -> "Host": ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...
